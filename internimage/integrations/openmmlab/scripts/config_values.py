"""Values of a config that mmengine takes as they are and stumbles over much later."""

from __future__ import annotations

import math
from typing import Any

from mmengine import optim  # noqa: F401  registers PyTorch's optimisers
from mmengine.config import Config
from mmengine.registry import OPTIMIZERS

from internimage.integrations.openmmlab.scripts.own_crops import check_crops
from internimage.script import nearest_hint

_LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")
WHOLE = {
    "train_cfg.max_epochs": 1,
    "train_cfg.max_iters": 1,
    "train_cfg.val_interval": 1,
    **{f"{loader}.batch_size": 1 for loader in _LOADERS},
    **{f"{loader}.num_workers": 0 for loader in _LOADERS},
}
"""Key to the least whole number that makes sense."""

NUMBERS = ("optim_wrapper.optimizer.lr", "optim_wrapper.optimizer.weight_decay")
"""Keys of numbers that are at least 0."""


def check_values(config: Config) -> None:
    """Check the numbers that a run depends on, the sizes of crops and the optimiser's name.

    Raises:
        ValueError: A value is of another kind or out of range; the message names its key.
    """
    for key, least in WHOLE.items():
        value = _value(config, key)
        if value is not None and (
            # True is an int in Python.
            isinstance(value, bool) or not isinstance(value, int) or value < least
        ):
            raise ValueError(f"expected {key} = a whole number >= {least}, got {value!r}")
    for key in NUMBERS:
        value = _value(config, key)
        if value is not None and (
            isinstance(value, bool)
            or not isinstance(value, (int, float))
            or not 0 <= value < math.inf  # false of NaN as well
        ):
            raise ValueError(f"expected {key} = a number >= 0, got {value!r}")
    check_crops(config)
    kind = _value(config, "optim_wrapper.optimizer.type")
    if isinstance(kind, str) and OPTIMIZERS.get(kind) is None:
        known = list(OPTIMIZERS.module_dict)
        raise ValueError(
            f"expected optim_wrapper.optimizer.type = an optimiser that mmengine knows, got "
            f"{kind!r}{nearest_hint(kind, known)}"
        )


def _value(config: Config, key: str) -> Any:
    """Return the value of a dotted key, None where there is none."""
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, (Config, dict)) else None
    return value
