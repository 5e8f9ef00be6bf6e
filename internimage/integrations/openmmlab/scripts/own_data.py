"""Own data by a few keys at the top of a config, or on the command line.

A config's data sets, metrics and heads are built from these keys when its file is read; a key that
changes afterwards, in a config that inherits or behind ``--cfg-options``, would reach none of them.
Here it does::

    --cfg-options data_root=DIR train_ann_file=train.json "classes=('cat','dog')"

What semantic masks have beside boxes' data sets is in ``own_masks``.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Any

from mmengine.config import Config

from internimage.integrations.openmmlab.scripts import own_masks
from internimage.integrations.openmmlab.scripts.config_parts import (
    CLASSES,
    DATA_ROOT,
    EVALUATORS,
    LOADERS,
    PALETTE,
    annotation_path,
    heads,
    is_driving,
    leaf_datasets,
)
from internimage.integrations.openmmlab.scripts.own_classes import set_classes, set_palette
from internimage.integrations.openmmlab.scripts.own_crops import apply_crop_size

PARTS = ("train", "val")
OWN_DATA_KEYS = (
    DATA_ROOT,
    CLASSES,
    "train_ann_file",
    "train_img_prefix",
    "val_ann_file",
    "val_img_prefix",
    PALETTE,
    *own_masks.MASK_KEYS,
)
"""``data_root``, ``classes`` (names), ``palette`` (their colours), and of each part the annotations
and the folder of images, relative to ``data_root``; for semantic masks those of ``own_masks``. The
test reads what the validation reads."""

DRIVING_KEYS = (DATA_ROOT, "train_ann_file", "val_ann_file")
"""Those that data sets of driving have as well."""

# In a data set's data_prefix: the images of most sets, the folder of a year of Pascal VOC.
IMAGE_PREFIXES = ("img", "img_path", "sub_data_root")


def apply_own_data(config: Config, *, given: Collection[str] = ()) -> None:
    """Carry the keys for own data to where they are read.

    Args:
        config: Changed in place.
        given: Keys of the command line. Others count where the config changed them after its data
            sets were written down.

    Raises:
        ValueError: A key is of the wrong kind, means nothing to the data sets, or lists several of
            them beside one.
    """
    own_masks.require_semantic(config, given)
    _require_images(config, given)
    # Metrics name their files themselves: what the data sets read before tells whose file it is.
    before = {
        loader: [dict(leaf) for _, leaf in leaf_datasets(config, loader)] for loader in LOADERS
    }
    roots = {leaf.get(DATA_ROOT) for leaves in before.values() for leaf in leaves}
    root = config.get(DATA_ROOT)
    if root is not None and (DATA_ROOT in given or root not in roots):
        _check_text(DATA_ROOT, root)
        for loader in LOADERS:
            for _, leaf in leaf_datasets(config, loader):
                leaf[DATA_ROOT] = root
    for part in PARTS:
        for name, write in _WRITERS.items():
            key = f"{part}_{name}"
            if config.get(key) is not None:
                _spread(config, key, part, write, is_given=key in given)
    _move_evaluators(config, before, always="val_ann_file" in given)
    if own_masks.is_semantic(config):
        leaves = [leaf for loader in LOADERS for _, leaf in leaf_datasets(config, loader)]
        own_masks.apply_fields(config, leaves, given)
        apply_crop_size(config, given)
    # The palette after the classes, whose number it has to have.
    if config.get(CLASSES) is not None:
        set_classes(config, given)
    if config.get(PALETTE) is not None:
        set_palette(config, given)


def _require_images(config: Config, given: Collection[str]) -> None:
    """Refuse keys that frames of several cameras have no use for."""
    keys = [key for key in OWN_DATA_KEYS if key in given and key not in DRIVING_KEYS]
    if keys and is_driving(config):
        raise ValueError(
            f"expected {', '.join(DRIVING_KEYS)} of the keys for own data in --cfg-options, got "
            f"{keys[0]}: the images of a frame and its classes stand in the annotations"
        )


def _spread(config: Config, key: str, part: str, write: Any, *, is_given: bool) -> None:
    """Write a key into the data sets of its part: train's, or val's and the test's."""
    loaders = [loader for loader, its_part in LOADERS.items() if its_part == part]
    own = [leaf for _, leaf in leaf_datasets(config, loaders[0])]
    values = config[key] if isinstance(config[key], (list, tuple)) else [config[key]]
    for value in values:
        _check_text(key, value)
    if not is_given and _shown(own, write) == list(values):
        return  # the data sets were written with it, and the test's may differ on purpose
    for loader in loaders:
        leaves = [leaf for _, leaf in leaf_datasets(config, loader)]
        # Another key has left one set of several, and the files of the base's are not the user's.
        if len(values) > len(leaves) > 0 and not is_given:
            raise ValueError(
                f"expected {key} beside the keys for own data that are given, which leave "
                f"{len(leaves)} of {len(values)} data sets of {loader}, got none"
            )
        if len(values) not in (1, len(leaves)) and leaves:
            raise ValueError(
                f"expected {key} for each of the {len(leaves)} data sets of {loader}, got "
                f"{len(values)}: {config[key]}"
            )
        # One folder for what were several, such as VOC's two years: no set without an own file.
        if len(values) < len(leaves):
            _keep_first(config, loader)
            leaves = leaves[:1]
        for leaf, value in zip(leaves, values, strict=False):
            write(leaf, value)


def _keep_first(config: Config, loader: str) -> None:
    """Leave one of several concatenated data sets: the one that own data takes the place of."""
    node = config[loader]["dataset"]
    while isinstance(node.get("dataset"), dict):
        node = node["dataset"]
    node["datasets"] = node["datasets"][:1]


def _shown(leaves: list[dict[str, Any]], write: Any) -> list[Any]:
    """Return what the data sets hold of what ``write`` writes."""
    if write is _set_ann_file:
        return [leaf.get("ann_file") for leaf in leaves]
    name = (lambda _: own_masks.PREFIX) if write is _set_mask_prefix else _image_key
    return [_prefixes(leaf).get(name(leaf)) for leaf in leaves]


def _set_ann_file(leaf: dict[str, Any], value: str) -> None:
    leaf["ann_file"] = value


def _set_image_prefix(leaf: dict[str, Any], value: str) -> None:
    leaf["data_prefix"] = {**_prefixes(leaf), _image_key(leaf): value}


def _set_mask_prefix(leaf: dict[str, Any], value: str) -> None:
    leaf["data_prefix"] = {**_prefixes(leaf), own_masks.PREFIX: value}


_WRITERS = {
    "ann_file": _set_ann_file,
    "img_prefix": _set_image_prefix,
    "seg_map_prefix": _set_mask_prefix,
}


def _prefixes(leaf: dict[str, Any]) -> dict[str, Any]:
    return dict(leaf.get("data_prefix") or {})


def _image_key(leaf: dict[str, Any]) -> str:
    prefixes = _prefixes(leaf)
    return next((name for name in IMAGE_PREFIXES if name in prefixes), "img")


def _move_evaluators(
    config: Config, before: dict[str, list[dict[str, Any]]], *, always: bool
) -> None:
    """Let the metrics, and the federated loss, read the files that the data sets read now."""
    for name, loader in EVALUATORS.items():
        now = [leaf for _, leaf in leaf_datasets(config, loader)]
        if len(now) != 1:
            continue  # a metric reads one file: with several sets it is the config's business
        old, new = annotation_path(before[loader][0]), annotation_path(now[0])
        metrics = config.get(name)
        for metric in metrics if isinstance(metrics, (list, tuple)) else [metrics]:
            if isinstance(metric, dict) and isinstance(metric.get("ann_file"), str):
                if always or os.path.normpath(metric["ann_file"]) == os.path.normpath(old):
                    metric["ann_file"] = new
    train = [leaf for _, leaf in leaf_datasets(config, "train_dataloader")]
    if not train:
        return
    old, new = annotation_path(before["train_dataloader"][0]), annotation_path(train[0])
    for _, head in heads(config):
        loss = head.get("fed_loss")
        if isinstance(loss, dict) and isinstance(loss.get("ann_file"), str):
            if os.path.normpath(loss["ann_file"]) == os.path.normpath(old):
                loss["ann_file"] = new


def _check_text(key: str, value: Any) -> None:
    if not isinstance(value, str):
        raise ValueError(f"expected {key} = a path, got {value!r}")
