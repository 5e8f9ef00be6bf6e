"""What ``accelerate launch`` says, as settings of ours.

accelerate's launcher passes its YAML file on as environment variables. Here they become options
like those behind ``--opts``, so that one train.py serves torchrun and accelerate alike; flags and
``--opts`` win over both. Written for accelerate 1.15; a variable that asks for something else than
what is done here is refused.
"""

from collections.abc import Mapping

from classification.strategies.deepspeed_json import AUTO, PRECISIONS, find_json

# Launchers' features that nothing here answers to.
REFUSED = ("ACCELERATE_USE_MEGATRON_LM", "ACCELERATE_USE_PARALLELISM_CONFIG")

# What is done under ``--strategy fsdp`` in the launcher's words: variable -> values, in lower case.
# The launcher sets most of them always, to its defaults, which are among these. Not here is what
# has no consequence: the model is built whole on each rank and initialised alike, and states have
# one form (FSDP_STATE_DICT_TYPE, _SYNC_MODULE_STATES, _CPU_RAM_EFFICIENT_LOADING, ...).
DONE_BY_FSDP = {
    "FSDP_VERSION": ("1", "2"),  # the words differ, sharding does not
    "FSDP_SHARDING_STRATEGY": ("full_shard", "1"),
    # "full_shard" is what the launcher's version 1 writes here as well.
    "FSDP_RESHARD_AFTER_FORWARD": ("true", "full_shard", "1"),
    "FSDP_FORWARD_PREFETCH": ("false",),
    "FSDP_BACKWARD_PREFETCH": ("backward_pre", "1"),
    "FSDP_ACTIVATION_CHECKPOINTING_OFFLOAD": ("false",),
    "FSDP_IGNORED_MODULES": (),
    "FSDP_AUTO_WRAP_POLICY": ("transformer_based_wrap",),  # block by block
    "FSDP_TRANSFORMER_CLS_TO_WRAP": ("internimageblock",),
}
# Likewise for torch.compile.
DONE_BY_COMPILE = {
    "ACCELERATE_DYNAMO_MODE": ("default",),
    "ACCELERATE_DYNAMO_USE_FULLGRAPH": ("false",),
    "ACCELERATE_DYNAMO_USE_DYNAMIC": ("false",),
    "ACCELERATE_DYNAMO_USE_REGIONAL_COMPILATION": ("false",),
}


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
        _check_is_done(environment, DONE_BY_FSDP)
        options["TRAIN.STRATEGY"] = "fsdp"
        if _is_true(environment.get("FSDP_OFFLOAD_PARAMS")):
            options["TRAIN.OFFLOAD_PARAM"] = "cpu"
        if _is_true(environment.get("FSDP_ACTIVATION_CHECKPOINTING")):
            options["TRAIN.USE_CHECKPOINT"] = "True"
    backend = environment.get("ACCELERATE_DYNAMO_BACKEND", "NO")
    if backend not in ("NO", "INDUCTOR"):
        raise _refusal("ACCELERATE_DYNAMO_BACKEND", backend, "one of ('NO', 'INDUCTOR')")
    if backend == "INDUCTOR":
        _check_is_done(environment, DONE_BY_COMPILE)
        options["TRAIN.COMPILE"] = "True"
    return options


def asks_for_cpu(environment: Mapping[str, str]) -> bool:
    """Returns whether accelerate's launcher was told to leave the GPUs alone."""
    return _is_true(environment.get("ACCELERATE_USE_CPU"))


def _check_is_done(environment: Mapping[str, str], done: Mapping[str, tuple[str, ...]]) -> None:
    """Refuses variables that ask for something else than what is done."""
    for name, values in done.items():
        if name in environment and environment[name].lower() not in values:
            raise _refusal(name, environment[name], f"one of {values}" if values else "unset")


def _is_true(text: str | None) -> bool:
    return text is not None and text.lower() in ("1", "true", "yes")


def _refusal(name: str, value: str, wanted: str) -> ValueError:
    return ValueError(f"launcher_options: expected {name} {wanted}, got {value}")
