"""Settings that are each fine and do not go together.

A setting without an effect is refused as well: whoever wrote it expects one.
"""

from yacs.config import CfgNode

from internimage.imagenet22k import NUM_22K_CLASSES


def check_conflicts(config: CfgNode) -> None:
    """Checks the settings against each other.

    Raises:
        ValueError: Two of them contradict each other, or one has no effect beside another.
    """
    for is_broken, rule, got in _rules(config):
        if is_broken:
            raise ValueError(f"config: expected {rule}, got {got}")


def _rules(config: CfgNode) -> list[tuple[bool, str, object]]:
    """Returns (whether it is broken, the rule in words, what there is instead)."""
    train, data, model = config.TRAIN, config.DATA, config.MODEL
    strategy, epochs = train.STRATEGY, train.EPOCHS
    is_deepspeed = strategy == "deepspeed"
    with_stage = f"{strategy} with TRAIN.ZERO_STAGE {train.ZERO_STAGE}"
    needs_deepspeed = "TRAIN.STRATEGY deepspeed beside"
    return [
        (
            train.WARMUP_EPOCHS > epochs,
            f"TRAIN.WARMUP_EPOCHS <= TRAIN.EPOCHS = {epochs}",
            train.WARMUP_EPOCHS,
        ),
        (
            train.START_EPOCH >= epochs,
            f"TRAIN.START_EPOCH < TRAIN.EPOCHS = {epochs}",
            train.START_EPOCH,
        ),
        (
            train.ZERO_STAGE != 1 and not is_deepspeed,
            f"{needs_deepspeed} TRAIN.ZERO_STAGE = {train.ZERO_STAGE}",
            strategy,
        ),
        (
            train.DEEPSPEED_CONFIG != "" and not is_deepspeed,
            f"{needs_deepspeed} TRAIN.DEEPSPEED_CONFIG = {train.DEEPSPEED_CONFIG}",
            strategy,
        ),
        (
            train.OFFLOAD_OPTIMIZER != "none" and not is_deepspeed,
            f"{needs_deepspeed} TRAIN.OFFLOAD_OPTIMIZER = {train.OFFLOAD_OPTIMIZER}",
            strategy,
        ),
        (
            train.OFFLOAD_PARAM != "none"
            and not (strategy == "fsdp" or (is_deepspeed and train.ZERO_STAGE == 3)),
            "TRAIN.STRATEGY fsdp, or deepspeed with TRAIN.ZERO_STAGE 3, beside "
            f"TRAIN.OFFLOAD_PARAM = {train.OFFLOAD_PARAM}",
            with_stage,
        ),
        (
            # The others share the optimiser's states in any case.
            train.OPTIMIZER.USE_ZERO and strategy != "ddp",
            "TRAIN.STRATEGY ddp beside TRAIN.OPTIMIZER.USE_ZERO = True",
            strategy,
        ),
        (
            data.ZIP_MODE and data.STORAGE not in ("auto", "zip"),
            "DATA.STORAGE zip or auto beside DATA.ZIP_MODE = True",
            data.STORAGE,
        ),
        (
            config.AUG.RANDOM_RESIZED_CROP and config.TEST.CROP,
            "TEST.CROP = False beside AUG.RANDOM_RESIZED_CROP = True",
            config.TEST.CROP,
        ),
        (
            config.EVAL_MODE and config.THROUGHPUT_MODE,
            "EVAL_MODE or THROUGHPUT_MODE",
            "both",
        ),
        (
            config.EVAL_MODE and not (model.RESUME or model.PRETRAINED),
            "MODEL.RESUME or MODEL.PRETRAINED beside EVAL_MODE = True",
            "neither",
        ),
        (
            config.EVAL_22K_TO_1K and not config.EVAL_MODE,
            "EVAL_MODE = True beside EVAL_22K_TO_1K = True",
            config.EVAL_MODE,
        ),
        (
            config.EVAL_22K_TO_1K and model.NUM_CLASSES not in (None, NUM_22K_CLASSES),
            f"MODEL.NUM_CLASSES = {NUM_22K_CLASSES} beside EVAL_22K_TO_1K = True",
            model.NUM_CLASSES,
        ),
    ]
