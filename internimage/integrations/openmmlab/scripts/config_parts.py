"""Where the data sets and the heads of a config are, wrappers seen through."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS

CLASSES = "classes"
PALETTE = "palette"
DATA_ROOT = "data_root"

# Loader to the part of own data that it reads: the test reads what the validation reads.
LOADERS = {"train_dataloader": "train", "val_dataloader": "val", "test_dataloader": "val"}
EVALUATORS = {"val_evaluator": "val_dataloader", "test_evaluator": "test_dataloader"}

TASKS = {"mmdet": "detection", "mmseg": "segmentation"}
"""Of each library's scope the folder with scripts and configs."""

DRIVING = "autonomous_driving"
DRIVING_PACKAGE = "internimage.integrations.openmmlab.driving"
"""What configs of driving import, whose scope is mmdet's as well."""

# They hold a num_classes that counts something else.
NOT_HEADS = ("backbone", "fed_loss")


def task_of(config: Config) -> str | None:
    """Return the folder whose scripts a config is for, None where nothing tells."""
    if is_driving(config):
        return DRIVING
    return TASKS.get(config.get("default_scope"))


def is_driving(config: Config) -> bool:
    """Return whether a config is of driving: of frames with several cameras, without boxes."""
    imports = (config.get("custom_imports") or {}).get("imports") or ()
    return DRIVING_PACKAGE in ([imports] if isinstance(imports, str) else imports)


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
    # DetTTAModel and its like hold the model as `module`.
    model = config.get("model")
    while isinstance(model, dict) and isinstance(model.get("module"), dict):
        model = model["module"]
    return list(_heads("model", model))


def annotation_path(leaf: dict[str, Any]) -> str:
    """Return where a data set's annotation file is, as the data set will look for it."""
    return os.path.join(leaf.get(DATA_ROOT) or "", leaf.get("ann_file") or "")


def data_set_class(config: Config, leaf: dict[str, Any]) -> Any:
    """Return the class of a data set, None where nothing of its name is registered."""
    kind = leaf.get("type")
    if isinstance(kind, str):
        # A plain name is looked for in the config's own library first, as its runner will do.
        with DATASETS.switch_scope_and_registry(config.get("default_scope")) as registry:
            return registry.get(kind)
    return kind


def type_name(part: Mapping[str, Any]) -> str:
    """Return the type of a transform or data set without the library that may stand in front."""
    kind = part.get("type")
    return str(getattr(kind, "__name__", kind)).rpartition(".")[2]


def transforms(node: Any) -> Iterator[dict[str, Any]]:
    """Yield every transform, those within others as well, of whatever a config holds."""
    if isinstance(node, (list, tuple)):
        for item in node:
            yield from transforms(item)
    elif isinstance(node, dict):
        if "type" in node:
            yield node
        for value in node.values():
            yield from transforms(value)


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
