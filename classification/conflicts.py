"""Settings that are each fine and do not go together.

Some contradict each other, which is an error; others have no effect beside a switch that is off,
which is a warning: a recipe's detail is left over when a flag turns off what it is a detail of.
"""

import warnings
from collections.abc import Mapping

from yacs.config import CfgNode

from internimage.imagenet22k import NUM_22K_CLASSES


def check_conflicts(config: CfgNode) -> None:
    """Checks the settings against each other.

    Raises:
        ValueError: Two of them contradict each other.
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


def warn_about_idle_settings(config: CfgNode, defaults: Mapping[str, object]) -> None:
    """Warns, a line each, of settings that were chosen and have no effect beside another.

    Args:
        config: The settings.
        defaults: Dotted key to value: where a setting has it, nobody has chosen it.
    """
    for is_idle, keys, beside in _idle_settings(config):
        for key in keys.split() if is_idle else ():
            group, _, leaf = key.rpartition(".")
            node = config
            for name in filter(None, group.split(".")):
                node = node[name]
            if node[leaf] != defaults[key]:
                warnings.warn(
                    f"config: {key} = {node[leaf]} has no effect beside {beside}", stacklevel=4
                )


def _idle_settings(config: CfgNode) -> list[tuple[bool, str, str]]:
    """Returns (whether they are idle, keys, what makes them so)."""
    train, data, aug = config.TRAIN, config.DATA, config.AUG
    optimizer, schedule = train.OPTIMIZER.NAME, train.LR_SCHEDULER.NAME
    is_float32 = config.AMP_OPT_LEVEL == "O0"
    has_cutmix = aug.CUTMIX > 0 or aug.CUTMIX_MINMAX is not None
    mixes = aug.MIXUP > 0 or has_cutmix
    is_made = data.DATASET == "digits"  # comes with scikit-learn, nothing lies on the disk
    of_mixing = "AUG.MIXUP_PROB AUG.MIXUP_MODE"
    return [
        (
            not train.LR_LAYER_DECAY,
            "TRAIN.LR_LAYER_DECAY_RATIO",
            "TRAIN.LR_LAYER_DECAY = False",
        ),
        (not train.EMA.ENABLE, "TRAIN.EMA.DECAY", "TRAIN.EMA.ENABLE = False"),
        # The throughput is measured in float32 and in AMP_TYPE, whatever the level.
        (is_float32 and not config.THROUGHPUT_MODE, "AMP_TYPE", "AMP_OPT_LEVEL = O0"),
        (is_float32, "TRAIN.GRAD_SCALER", "AMP_OPT_LEVEL = O0"),
        (
            not is_float32 and config.AMP_TYPE == "bfloat16",
            "TRAIN.GRAD_SCALER",
            "AMP_TYPE = bfloat16, which is never scaled",
        ),
        (optimizer != "sgd", "TRAIN.OPTIMIZER.MOMENTUM", f"TRAIN.OPTIMIZER.NAME = {optimizer}"),
        (
            optimizer != "adamw",
            "TRAIN.OPTIMIZER.EPS TRAIN.OPTIMIZER.BETAS",
            f"TRAIN.OPTIMIZER.NAME = {optimizer}",
        ),
        (
            schedule != "step",
            "TRAIN.LR_SCHEDULER.DECAY_EPOCHS TRAIN.LR_SCHEDULER.DECAY_RATE",
            f"TRAIN.LR_SCHEDULER.NAME = {schedule}",
        ),
        (schedule != "cosine", "TRAIN.MIN_LR", f"TRAIN.LR_SCHEDULER.NAME = {schedule}"),
        (not mixes, of_mixing, "AUG.MIXUP = AUG.CUTMIX = 0"),
        (
            not (aug.MIXUP > 0 and has_cutmix),
            "AUG.MIXUP_SWITCH_PROB",
            "AUG.MIXUP = 0 or AUG.CUTMIX = 0",
        ),
        (aug.REPROB == 0, "AUG.REMODE AUG.RECOUNT", "AUG.REPROB = 0"),
        (
            is_made,
            "DATA.DATA_PATH DATA.STORAGE DATA.ZIP_MODE DATA.IMG_ON_MEMORY",
            "DATA.DATASET = digits",
        ),
        (
            config.MODEL.DROP_PATH_RATE == 0,
            "MODEL.DROP_PATH_TYPE",
            "MODEL.DROP_PATH_RATE = 0",
        ),
        (
            not config.THROUGHPUT_MODE,
            "TEST.WARMUP_STEPS TEST.TIMED_STEPS",
            "THROUGHPUT_MODE = False",
        ),
    ]
