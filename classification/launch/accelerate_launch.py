"""What ``accelerate launch`` and DeepSpeed's JSON files say, as settings of ours.

accelerate's launcher passes its YAML file on as environment variables. Here they become options
like those behind ``--opts``, so that one train.py serves torchrun and accelerate alike; flags and
``--opts`` win over both. Written for accelerate 1.15; other values than those below are refused,
for they would have no effect.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

# What JSON files write for "whatever the program decides".
AUTO = "auto"

# Value of ACCELERATE_MIXED_PRECISION -> options.
PRECISIONS = {
    "no": {"AMP_OPT_LEVEL": "O0"},
    "fp16": {"AMP_OPT_LEVEL": "O1", "AMP_TYPE": "float16"},
    "bf16": {"AMP_OPT_LEVEL": "O1", "AMP_TYPE": "bfloat16"},
}
# Launchers' features that nothing here answers to.
REFUSED = ("ACCELERATE_USE_MEGATRON_LM", "ACCELERATE_USE_PARALLELISM_CONFIG")


def launcher_options(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns the options, dotted key to text, that accelerate's launcher asks for.

    Args:
        environment: That of this process; empty but for accelerate, no option comes out.

    Raises:
        ValueError: A variable asks for something that training here does not have.
    """
    for name in REFUSED:
        if _is_true(environment.get(name)):
            raise _refusal(name, environment[name], "false")
    options: dict[str, str] = {}
    config_file = environment.get("ACCELERATE_DEEPSPEED_CONFIG_FILE", "")
    use_deepspeed = _is_true(environment.get("ACCELERATE_USE_DEEPSPEED"))
    if use_deepspeed and config_file:
        options["TRAIN.DEEPSPEED_CONFIG"] = str(find_json(config_file))
    elif precision := environment.get("ACCELERATE_MIXED_PRECISION"):
        # Beside a JSON file, which has the precision, the launcher always says "no".
        if precision not in PRECISIONS:
            raise _refusal("ACCELERATE_MIXED_PRECISION", precision, f"one of {tuple(PRECISIONS)}")
        options |= PRECISIONS[precision]
    if use_deepspeed:
        options["TRAIN.STRATEGY"] = "deepspeed"
        for name, key in (
            ("ACCELERATE_DEEPSPEED_ZERO_STAGE", "TRAIN.ZERO_STAGE"),
            ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "TRAIN.ACCUMULATION_STEPS"),
            ("ACCELERATE_GRADIENT_CLIPPING", "TRAIN.CLIP_GRAD"),
            ("ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE", "TRAIN.OFFLOAD_OPTIMIZER"),
            ("ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE", "TRAIN.OFFLOAD_PARAM"),
        ):
            if environment.get(name, AUTO) not in (AUTO, "none"):
                options[key] = environment[name]
    if _is_true(environment.get("ACCELERATE_USE_FSDP")):
        options["TRAIN.STRATEGY"] = "fsdp"
        if _is_true(environment.get("FSDP_OFFLOAD_PARAMS")):
            options["TRAIN.OFFLOAD_PARAM"] = "cpu"
        if _is_true(environment.get("FSDP_ACTIVATION_CHECKPOINTING")):
            options["TRAIN.USE_CHECKPOINT"] = "True"
    backend = environment.get("ACCELERATE_DYNAMO_BACKEND", "NO")
    if backend not in ("NO", "INDUCTOR"):
        raise _refusal("ACCELERATE_DYNAMO_BACKEND", backend, "one of ('NO', 'INDUCTOR')")
    if backend == "INDUCTOR":
        options["TRAIN.COMPILE"] = "True"
    return options


def asks_for_cpu(environment: Mapping[str, str]) -> bool:
    """Returns whether accelerate's launcher was told to leave the GPUs alone."""
    return _is_true(environment.get("ACCELERATE_USE_CPU"))


def json_options(path: str) -> dict[str, str]:
    """Returns the options that a JSON file of DeepSpeed decides; ``"auto"`` decides nothing.

    What the file holds beyond them is for DeepSpeed itself (``TRAIN.DEEPSPEED_CONFIG``).

    Raises:
        ValueError: There is no such file, or it holds no JSON object.
    """
    file = find_json(path)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"json_options: expected JSON in {path}, got {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"json_options: expected a JSON object in {path}, got {content!r}")
    zero = _group(content, "zero_optimization")
    found = {
        "TRAIN.ZERO_STAGE": zero.get("stage"),
        "TRAIN.OFFLOAD_OPTIMIZER": _group(zero, "offload_optimizer").get("device"),
        "TRAIN.OFFLOAD_PARAM": _group(zero, "offload_param").get("device"),
        "TRAIN.ACCUMULATION_STEPS": content.get("gradient_accumulation_steps"),
        "TRAIN.CLIP_GRAD": content.get("gradient_clipping"),
        "DATA.BATCH_SIZE": content.get("train_micro_batch_size_per_gpu"),
    }
    options = {key: str(value) for key, value in found.items() if value not in (None, AUTO)}
    enabled = {name: _group(content, name).get("enabled") for name in ("fp16", "bf16")}
    chosen = [name for name, value in enabled.items() if value is True]
    if chosen:
        options |= PRECISIONS[chosen[0]]
    elif False in enabled.values() and AUTO not in enabled.values():
        options |= PRECISIONS["no"]
    # 0 is dynamic scaling; 1 multiplies by one.
    if _group(content, "fp16").get("loss_scale") == 1:
        options["TRAIN.GRAD_SCALER"] = "False"
    return options


def find_json(path: str) -> Path:
    """Returns the file, looked for from here and from the project's root."""
    for file in (Path(path), ROOT / path):
        if file.is_file():
            return file
    raise ValueError(f"json_options: expected an existing JSON file for DeepSpeed, got {path}")


def _group(content: dict[str, Any], name: str) -> dict[str, Any]:
    group = content.get(name, {})
    return group if isinstance(group, dict) else {}


def _is_true(text: str | None) -> bool:
    return text is not None and text.lower() in ("1", "true", "yes")


def _refusal(name: str, value: str, wanted: str) -> ValueError:
    return ValueError(f"launcher_options: expected {name} {wanted}, got {value}")
