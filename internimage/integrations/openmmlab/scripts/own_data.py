"""Own data by a few keys at the top of a config, or on the command line.

A config's data sets, metrics and heads are built from these keys when its file is read; a key that
changes afterwards, in a config that inherits or behind ``--cfg-options``, would reach none of them.
Here it does::

    --cfg-options data_root=DIR train_ann_file=train.json "classes=('cat','dog')"
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from typing import Any

from mmengine.config import Config

DATA_ROOT = "data_root"
CLASSES = "classes"
PARTS = ("train", "val")
OWN_DATA_KEYS = (
    DATA_ROOT,
    CLASSES,
    "train_ann_file",
    "train_img_prefix",
    "val_ann_file",
    "val_img_prefix",
)
"""``data_root``, ``classes`` (names), and of each part the annotations and the folder of images,
relative to ``data_root``. The test reads what the validation reads."""

LOADERS = {"train_dataloader": "train", "val_dataloader": "val", "test_dataloader": "val"}
EVALUATORS = {"val_evaluator": "val_dataloader", "test_evaluator": "test_dataloader"}

# In a data set's data_prefix: the images of most sets, the folder of a year of Pascal VOC.
IMAGE_PREFIXES = ("img", "img_path", "sub_data_root")
# They hold a num_classes that counts something else.
NOT_HEADS = ("backbone", "fed_loss")


def leaf_datasets(config: Config, loader: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the data sets of a loader with their dotted keys, wrappers seen through."""
    settings = config.get(loader)
    if not isinstance(settings, dict) or not isinstance(settings.get("dataset"), dict):
        return []
    return list(_leaves(f"{loader}.dataset", settings["dataset"]))


def heads(config: Config) -> list[tuple[str, dict[str, Any]]]:
    """Return the parts of the model that know a number of classes, with their dotted keys.

    A model that test-time augmentation has wrapped keeps the keys that it has in its file.
    """
    model = config.get("model")
    while isinstance(model, dict) and isinstance(model.get("module"), dict):
        model = model["module"]
    return list(_heads("model", model))


def apply_own_data(config: Config, *, given: Collection[str] = ()) -> None:
    """Carry the keys for own data to where they are read.

    Args:
        config: Changed in place.
        given: Keys of the command line. Others count where the config changed them after its data
            sets were written down.

    Raises:
        ValueError: A key is of the wrong kind, or lists several data sets beside one.
    """
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
        for name, write in (("ann_file", _set_ann_file), ("img_prefix", _set_image_prefix)):
            key = f"{part}_{name}"
            if config.get(key) is not None:
                _spread(config, key, part, write, is_given=key in given)
    _move_evaluators(config, before, always="val_ann_file" in given)
    if config.get(CLASSES) is not None:
        _set_classes(config, given)


def annotation_path(leaf: dict[str, Any]) -> str:
    """Return where a data set's annotation file is, as the data set will look for it."""
    return os.path.join(leaf.get(DATA_ROOT) or "", leaf.get("ann_file") or "")


def _leaves(key: str, dataset: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(dataset.get("dataset"), dict):
        yield from _leaves(f"{key}.dataset", dataset["dataset"])
    elif isinstance(dataset.get("datasets"), (list, tuple)):
        for index, inner in enumerate(dataset["datasets"]):
            yield from _leaves(f"{key}.datasets.{index}", inner)
    else:
        yield key, dataset


def _heads(key: str, node: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, (list, tuple)):
        for index, item in enumerate(node):
            yield from _heads(f"{key}.{index}", item)
    elif isinstance(node, dict):
        if isinstance(node.get("num_classes"), int):
            yield key, node
        for name, value in node.items():
            if name not in NOT_HEADS:
                yield from _heads(f"{key}.{name}", value)


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
        if len(values) not in (1, len(leaves)) and leaves:
            raise ValueError(
                f"expected {key} for each of the {len(leaves)} data sets of {loader}, got "
                f"{len(values)}: {config[key]}"
            )
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
    return [_prefixes(leaf).get(_image_key(leaf)) for leaf in leaves]


def _set_ann_file(leaf: dict[str, Any], value: str) -> None:
    leaf["ann_file"] = value


def _set_image_prefix(leaf: dict[str, Any], value: str) -> None:
    leaf["data_prefix"] = {**_prefixes(leaf), _image_key(leaf): value}


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
            continue
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


def _set_classes(config: Config, given: Collection[str]) -> None:
    names = config[CLASSES]
    names = (names,) if isinstance(names, str) else names
    if not isinstance(names, (list, tuple)) or not names:
        raise ValueError(f"expected classes = names, such as ('cat', 'dog'), got {names!r}")
    names = tuple(str(name) for name in names)  # 7 on a command line is a number
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"expected classes once each, got {', '.join(twice)} twice")
    config[CLASSES] = names
    for key, head in heads(config):
        if f"{key}.num_classes" in given and head["num_classes"] != len(names):
            raise ValueError(
                f"expected {key}.num_classes = {len(names)}, the number of classes "
                f"({', '.join(names)}), got {head['num_classes']}"
            )
    for loader in LOADERS:
        for _, leaf in leaf_datasets(config, loader):
            leaf["metainfo"] = {**(leaf.get("metainfo") or {}), CLASSES: names}
            # Colours of other classes, and of another number of them.
            leaf["metainfo"].pop("palette", None)
    for _, head in heads(config):
        _set_num_classes(head, len(names))


def _set_num_classes(head: dict[str, Any], count: int) -> None:
    old = head["num_classes"]
    head["num_classes"] = count
    for loss in head.values():
        weights = loss.get("class_weight") if isinstance(loss, dict) else None
        # A weight for each class and one for "no object", as Mask2Former has them.
        if isinstance(weights, (list, tuple)) and len(weights) == old + 1:
            loss["class_weight"] = [*[weights[0]] * count, weights[-1]]


def _check_text(key: str, value: Any) -> None:
    if not isinstance(value, str):
        raise ValueError(f"expected {key} = a path, got {value!r}")
