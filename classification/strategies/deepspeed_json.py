"""DeepSpeed's JSON files: where they are, and which of our settings they decide."""

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

# What JSON files write for "whatever the program decides".
AUTO = "auto"

# 16 bits in the words of accelerate and of the files -> options.
PRECISIONS = {
    "no": {"AMP_OPT_LEVEL": "O0"},
    "fp16": {"AMP_OPT_LEVEL": "O1", "AMP_TYPE": "float16"},
    "bf16": {"AMP_OPT_LEVEL": "O1", "AMP_TYPE": "bfloat16"},
}


def find_json(path: str) -> Path:
    """Returns the file, looked for from here and from the project's root.

    Raises:
        ValueError: There is no such file.
    """
    for file in (Path(path), ROOT / path):
        if file.is_file():
            return file
    raise ValueError(f"find_json: expected an existing JSON file for DeepSpeed, got {path}")


def read_json(path: str) -> dict[str, Any]:
    """Returns what a file says.

    Raises:
        ValueError: There is no such file, or it holds no JSON object.
    """
    try:
        content = json.loads(find_json(path).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"read_json: expected JSON in {path}, got {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"read_json: expected a JSON object in {path}, got {content!r}")
    return content


def without_auto(content: dict[str, Any]) -> dict[str, Any]:
    """Returns a file's content without its ``"auto"`` values, for which DeepSpeed has a default."""
    return {
        key: without_auto(value) if isinstance(value, dict) else value
        for key, value in content.items()
        if value != AUTO
    }


def json_options(path: str) -> dict[str, str]:
    """Returns the options, dotted key to text, that a file decides; ``"auto"`` decides nothing.

    What the file holds beyond them is for DeepSpeed itself (``TRAIN.DEEPSPEED_CONFIG``).

    Raises:
        ValueError: There is no such file, or it holds no JSON object.
    """
    content = read_json(path)
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


def _group(content: dict[str, Any], name: str) -> dict[str, Any]:
    group = content.get(name, {})
    return group if isinstance(group, dict) else {}
