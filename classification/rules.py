"""Rules for the values of settings: a range, a type, a choice."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from internimage.metadata import INTERPOLATIONS


class Rule(NamedTuple):
    """What a value must be.

    Args:
        words: As an error says it, behind the key.
        holds: The test; a TypeError means no.
        choices: All values, where the rule is a list of them.
    """

    words: str
    holds: Callable[[Any], bool]
    choices: tuple[str | int, ...] = ()


def check_value(key: str, value: Any) -> None:
    """Checks a value that is not None against the rule of its key, if there is one.

    Raises:
        ValueError: The value breaks the rule.
    """
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"config: expected {key} finite, got {value}")
    rule = RULES.get(key)
    if rule is None:
        return
    try:
        kept = rule.holds(value)
    except TypeError:  # a text among numbers
        kept = False
    if not kept:
        raise ValueError(f"config: expected {key} {rule.words}, got {value!r}")


def to_known_choice(key: str, value: Any) -> Any:
    """Returns a text as the rule of its key spells it, whatever its case: INTERN_IMAGE, dcnv3."""
    rule = RULES.get(key)
    if rule is None or not isinstance(value, str):
        return value
    by_lower = {choice.lower(): choice for choice in rule.choices if isinstance(choice, str)}
    return by_lower.get(value.lower(), value)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_int(value) or (isinstance(value, float) and math.isfinite(value))


def _are_ints(value: Any, *, at_least: int) -> bool:
    return isinstance(value, tuple) and all(_is_int(v) and v >= at_least for v in value)


def _one_of(choices: Sequence[str | int]) -> Rule:
    return Rule(f"one of {tuple(choices)}", lambda value: value in choices, tuple(choices))


POSITIVE = Rule("> 0", lambda value: _is_number(value) and value > 0)
NOT_NEGATIVE = Rule(">= 0", lambda value: _is_number(value) and value >= 0)
FRACTION = Rule("in [0, 1]", lambda value: 0 <= value <= 1)
FRACTION_BELOW_1 = Rule("in [0, 1)", lambda value: 0 <= value < 1)
BOOL = Rule("True or False", lambda value: isinstance(value, bool))
POSITIVE_INTS = Rule(
    "a list of integers > 0", lambda value: len(value) > 0 and _are_ints(value, at_least=1)
)
INDICES = Rule(
    "a list of different integers >= 0",
    lambda value: _are_ints(value, at_least=0) and len(set(value)) == len(value),
)
FOLDER_NAME = Rule(
    "a folder's name",
    lambda value: value not in (".", "..") and not set(value) & set("/\\\0\n"),
)

# Keys whose value has the type of its default need a rule only where that is not enough. Keys that
# are None by default all need one, which holds for every other value.
RULES: dict[str, Rule] = {
    "PRINT_FREQ": POSITIVE,
    "SAVE_FREQ": POSITIVE,
    "SAVE_STEPS": NOT_NEGATIVE,
    "SAVE_CKPT_NUM": POSITIVE,
    "EVAL_FREQ": POSITIVE,
    "AMP_OPT_LEVEL": _one_of(("O0", "O1", "O2")),
    "AMP_TYPE": _one_of(("float16", "bfloat16")),
    "LOGGER": _one_of(("tensorboard", "wandb", "none")),
    "TAG": FOLDER_NAME,
    "SEED": Rule("in [0, 2**63)", lambda value: 0 <= value < 2**63),
    "DATA.STORAGE": _one_of(("auto", "folder", "list", "zip", "shards")),
    "DATA.CACHE_MODE": _one_of(("no", "part", "full")),
    "DATA.MAX_BAD_SHARE": FRACTION,
    "DATA.BATCH_SIZE": POSITIVE,
    # The stem leaves a quarter of a side.
    "DATA.IMG_SIZE": Rule(">= 8 pixels", lambda value: _is_int(value) and value >= 8),
    "DATA.INTERPOLATION": _one_of(INTERPOLATIONS),
    "DATA.NUM_WORKERS": NOT_NEGATIVE,
    "MODEL.TYPE": _one_of(("intern_image", "intern_image_meta_former")),
    "MODEL.NAME": FOLDER_NAME,
    "MODEL.NUM_CLASSES": Rule("an integer > 0", lambda value: _is_int(value) and value > 0),
    "MODEL.DROP_PATH_TYPE": _one_of(("linear", "uniform")),
    "MODEL.INTERN_IMAGE.CORE_OP": _one_of(("DCNv3", "DCNv3_pytorch")),
    "MODEL.DROP_RATE": FRACTION_BELOW_1,
    "MODEL.DROP_PATH_RATE": FRACTION_BELOW_1,
    "MODEL.LABEL_SMOOTHING": FRACTION_BELOW_1,
    "MODEL.INTERN_IMAGE.CHANNELS": Rule(
        "an even integer > 0", lambda value: _is_int(value) and value > 0 and value % 2 == 0
    ),
    "MODEL.INTERN_IMAGE.DEPTHS": POSITIVE_INTS,
    "MODEL.INTERN_IMAGE.GROUPS": POSITIVE_INTS,
    "MODEL.INTERN_IMAGE.MLP_RATIO": POSITIVE,
    "MODEL.INTERN_IMAGE.LAYER_SCALE": NOT_NEGATIVE,
    "MODEL.INTERN_IMAGE.OFFSET_SCALE": POSITIVE,
    "MODEL.INTERN_IMAGE.POST_NORM": BOOL,
    "MODEL.INTERN_IMAGE.RES_POST_NORM": BOOL,
    "MODEL.INTERN_IMAGE.DW_KERNEL_SIZE": Rule(
        "an odd integer > 0", lambda value: _is_int(value) and value > 0 and value % 2 == 1
    ),
    "MODEL.INTERN_IMAGE.LEVEL2_POST_NORM": BOOL,
    "MODEL.INTERN_IMAGE.LEVEL2_POST_NORM_BLOCK_IDS": INDICES,
    "MODEL.INTERN_IMAGE.CENTER_FEATURE_SCALE": BOOL,
    "MODEL.INTERN_IMAGE.USE_CLIP_PROJECTOR": BOOL,
    "MODEL.INTERN_IMAGE.REMOVE_CENTER": BOOL,
    "TRAIN.EPOCHS": POSITIVE,
    "TRAIN.WARMUP_EPOCHS": NOT_NEGATIVE,
    "TRAIN.BASE_LR": POSITIVE,
    "TRAIN.WARMUP_LR": NOT_NEGATIVE,
    "TRAIN.MIN_LR": NOT_NEGATIVE,
    "TRAIN.WEIGHT_DECAY": NOT_NEGATIVE,
    "TRAIN.CLIP_GRAD": NOT_NEGATIVE,
    "TRAIN.ACCUMULATION_STEPS": NOT_NEGATIVE,
    "TRAIN.START_EPOCH": NOT_NEGATIVE,
    "TRAIN.STRATEGY": _one_of(("ddp", "fsdp", "deepspeed")),
    "TRAIN.ZERO_STAGE": _one_of((1, 2, 3)),
    "TRAIN.OFFLOAD_OPTIMIZER": _one_of(("none", "cpu")),
    "TRAIN.OFFLOAD_PARAM": _one_of(("none", "cpu")),
    "TRAIN.LR_LAYER_DECAY_RATIO": Rule("in (0, 1]", lambda value: 0 < value <= 1),
    "TRAIN.LR_SCHEDULER.NAME": _one_of(("cosine", "linear", "step")),
    "TRAIN.LR_SCHEDULER.DECAY_EPOCHS": POSITIVE,
    "TRAIN.LR_SCHEDULER.DECAY_RATE": POSITIVE,
    "TRAIN.OPTIMIZER.NAME": _one_of(("adamw", "sgd")),
    "TRAIN.OPTIMIZER.EPS": POSITIVE,
    "TRAIN.OPTIMIZER.BETAS": Rule(
        "two numbers in [0, 1)",
        lambda value: len(value) == 2 and all(0 <= beta < 1 for beta in value),
    ),
    # Nesterov's momentum, which has no 0.
    "TRAIN.OPTIMIZER.MOMENTUM": Rule("in (0, 1)", lambda value: 0 < value < 1),
    "TRAIN.OPTIMIZER.DCN_LR_MUL": POSITIVE,
    "TRAIN.OPTIMIZER.FREEZE_BACKBONE": INDICES,
    "TRAIN.EMA.DECAY": FRACTION_BELOW_1,
    "AUG.COLOR_JITTER": NOT_NEGATIVE,
    "AUG.HFLIP": FRACTION,
    "AUG.CROP_SCALE": Rule(
        "two numbers in (0, 1], the smaller one first",
        lambda value: len(value) == 2 and 0 < value[0] <= value[1] <= 1,
    ),
    "AUG.ROTATE": Rule("in [0, 180]", lambda value: 0 <= value <= 180),
    "AUG.TRANSLATE": FRACTION,
    "AUG.SCALE": FRACTION_BELOW_1,
    "AUG.SHEAR": Rule("in [0, 90)", lambda value: 0 <= value < 90),
    "AUG.REPROB": FRACTION,
    "AUG.REMODE": _one_of(("const", "rand", "pixel")),
    "AUG.RECOUNT": POSITIVE,
    "AUG.MIXUP": NOT_NEGATIVE,
    "AUG.CUTMIX": NOT_NEGATIVE,
    "AUG.CUTMIX_MINMAX": Rule(
        "two numbers in [0, 1], the smaller one first",
        lambda value: len(value) == 2 and 0 <= value[0] <= value[1] <= 1,
    ),
    "AUG.MIXUP_PROB": FRACTION,
    "AUG.MIXUP_SWITCH_PROB": FRACTION,
    "AUG.MIXUP_MODE": _one_of(("batch", "pair", "elem")),
    "TEST.WARMUP_STEPS": NOT_NEGATIVE,
    "TEST.TIMED_STEPS": POSITIVE,
    "AUG.MEAN": Rule(
        "three finite numbers", lambda value: len(value) == 3 and all(map(_is_number, value))
    ),
    "AUG.STD": Rule(
        "three numbers > 0",
        lambda value: len(value) == 3 and all(map(_is_number, value)) and min(value) > 0,
    ),
}
