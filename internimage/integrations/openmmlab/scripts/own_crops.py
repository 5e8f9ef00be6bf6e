"""The key ``crop_size``: what images are cut to in training, and what batches are padded to.

It stands in a base's pipeline, in the data preprocessor of the model, and at the top of the config,
where both have it from. Whoever changes it there means both.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any

from mmengine.config import Config

from internimage.integrations.openmmlab.scripts.config_parts import (
    leaf_datasets,
    transforms,
    type_name,
)
from internimage.integrations.openmmlab.scripts.own_pipelines import inherited

CROP_SIZE = "crop_size"
LOADER = "train_dataloader"
SIZE = "model.data_preprocessor.size"
CROP = "RandomCrop"
RESIZING = ("Resize", "Pad")
"""In the names of steps behind a crop that change its size once more."""


def apply_crop_size(config: Config, given: Collection[str]) -> None:
    """Carry ``crop_size`` to the crops of the training's pipelines and to what batches have.

    Args:
        config: Changed in place.
        given: Keys of the command line. The key of a file counts where the batches still have what
            a base had under it, and the crops are those of the base or fit the key already.

    Raises:
        ValueError: It is no height and width in pixels.
    """
    wanted = config.get(CROP_SIZE)
    if wanted is None:
        return
    steps = _crops(config)
    preprocessor = _preprocessor(config)
    if not steps:
        if CROP_SIZE in given:
            warnings.warn(
                f"--cfg-options {CROP_SIZE} has no effect: no {CROP} is among the transforms of "
                f"{LOADER}",
                stacklevel=4,
            )
        return
    cuts = {_pair(step.get(CROP_SIZE)) for step in steps}
    padded = _pair(preprocessor.get("size"))
    size = _pair(wanted)
    if CROP_SIZE not in given:
        # Whoever set one of the places on the command line meant that place.
        touched = any(
            key in (SIZE, "train_pipeline") or key.endswith(f".{CROP_SIZE}") for key in given
        )
        if touched or padded == size or cuts not in ({size}, {padded}):
            return
        # Batches of a size that a base has under this key were forgotten, not meant.
        if padded not in [_pair(value) for value in inherited(Path(config.filename), CROP_SIZE)]:
            return  # of the config's own: a contradiction is told, if it is one
    if size is None:
        raise ValueError(
            f"expected {CROP_SIZE} = (height, width), whole numbers of pixels > 0, got {wanted!r}"
        )
    for step in steps:
        step[CROP_SIZE] = size
    if padded is not None:
        preprocessor["size"] = size


def check_crops(config: Config) -> None:
    """Refuse crops of another size than that of the batches.

    A batch of larger ones cannot be stacked, and smaller ones are padded with what is not learned,
    for which the time is spent all the same.

    Raises:
        ValueError: Both sizes are given and differ; the message names both keys.
    """
    padded = _pair(_preprocessor(config).get("size"))
    if padded is None:
        return
    for key, leaf in leaf_datasets(config, LOADER):
        pipeline = leaf.get("pipeline") or []
        for index, step in enumerate(pipeline):
            behind = [type_name(other) for other in pipeline[index + 1 :]]
            if type_name(step) != CROP or any(part in name for name in behind for part in RESIZING):
                continue
            cut = _pair(step.get(CROP_SIZE))
            if cut is not None and cut != padded:
                raise ValueError(
                    f"expected {SIZE} = {cut}, the {CROP_SIZE} of {key}.pipeline.{index} ({CROP}), "
                    f'got {padded}; "{CROP_SIZE}=({cut[0]},{cut[1]})" in --cfg-options sets both'
                )


def _crops(config: Config) -> list[dict[str, Any]]:
    """Return the crops of a config's training, and those under the name that it has them from."""
    steps = transforms([config.get("train_pipeline"), config.get(LOADER)])
    return [step for step in steps if type_name(step) == CROP]


def _preprocessor(config: Config) -> dict[str, Any]:
    part = (config.get("model") or {}).get("data_preprocessor")
    return part if isinstance(part, dict) else {}


def _pair(value: Any) -> tuple[int, int] | None:
    """Return a height and a width; None for what is neither a pair nor one number for both."""
    # mmseg's RandomCrop takes one number for both.
    sides = (value, value) if isinstance(value, int) else value
    if not isinstance(sides, (list, tuple)) or len(sides) != 2:
        return None
    if not all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in sides):
        return None
    return (sides[0], sides[1])
