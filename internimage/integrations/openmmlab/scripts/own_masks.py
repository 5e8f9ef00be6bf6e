"""Own semantic masks: what mmseg's data sets need to be told beside the keys of ``own_data``.

A mask is an image of numbers, one for the class of each pixel. ``classes`` are the names of the
numbers 0, 1, 2 and so on; with ``reduce_zero_label`` of 1, 2, 3, and 0 is no class.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Collection, Iterable
from typing import Any

from mmengine.config import Config

from internimage.integrations.openmmlab.scripts.config_parts import (
    CLASSES,
    LOADERS,
    data_set_class,
    leaf_datasets,
    transforms,
    type_name,
)
from internimage.integrations.openmmlab.scripts.own_crops import CROP_SIZE

PREFIX = "seg_map_path"
"""In a data set's data_prefix: the folder of masks."""

REDUCE_ZERO_LABEL = "reduce_zero_label"
FIELDS = {"img_suffix": str, "seg_map_suffix": str, REDUCE_ZERO_LABEL: bool}
"""Arguments of all data sets of masks, keys at the top of a config as well, and their kinds."""

MASK_KEYS = ("train_seg_map_prefix", "val_seg_map_prefix", *FIELDS, CROP_SIZE)
"""The keys for own data that only data sets of masks have."""

BASE = "BaseSegDataset"
CHECK = "CheckSegMap"


def is_semantic(config: Config) -> bool:
    """Return whether a config's data sets have semantic masks."""
    return config.get("default_scope") == "mmseg"


def require_semantic(config: Config, given: Collection[str]) -> None:
    """Refuse keys about masks for data sets of boxes.

    Args:
        config: Complete.
        given: Keys of the command line.

    Raises:
        ValueError: There is such a key among them.
    """
    keys = [key for key in MASK_KEYS if key in given]
    if keys and not is_semantic(config):
        raise ValueError(
            f"expected keys of the config in --cfg-options, got {keys[0]}, which only data sets of "
            "semantic masks have"
        )


def apply_fields(config: Config, leaves: Iterable[dict[str, Any]], given: Collection[str]) -> None:
    """Carry suffixes and ``reduce_zero_label`` to the data sets.

    Args:
        config: With the keys at its top; its pipelines are changed where they contradict.
        leaves: The data sets, changed in place.
        given: Keys of the command line. Others count where no data set was written with them.

    Raises:
        ValueError: A key is of the wrong kind.
    """
    leaves = list(leaves)
    for key, kind in FIELDS.items():
        value = config.get(key)
        # Not typed, and some data set has it: another one that differs does so on purpose.
        if value is None or (key not in given and value in [leaf.get(key) for leaf in leaves]):
            continue
        if not isinstance(value, kind):
            rule = "True or False" if kind is bool else "the end of a file's name, such as .png"
            raise ValueError(f"expected {key} = {rule}, got {value!r}")
        for leaf in leaves:
            leaf[key] = value
        if key == REDUCE_ZERO_LABEL:
            for step in transforms(
                [config.get("tta_pipeline"), *(leaf.get("pipeline") for leaf in leaves)]
            ):
                # mmseg asserts that it says the same as the data set.
                if type_name(step) == "LoadAnnotations" and step.get(key) is not None:
                    step[key] = value


def release_types(
    config: Config, leaves: Iterable[tuple[str, dict[str, Any]]], given: Collection[str]
) -> None:
    """Let data sets whose type has classes of its own take others.

    mmseg's types refuse them, or take them for a choice of their own and renumber the masks.

    Args:
        config: With the classes.
        leaves: The data sets with their keys. Changed in place: their type, and what the old type
            had as defaults.
        given: Keys of the command line.
    """
    names = config[CLASSES]
    reduced = []
    for key, leaf in leaves:
        kind = data_set_class(config, leaf)
        own = getattr(kind, "METAINFO", {}).get(CLASSES)
        if kind is None or own is None or tuple(own) == names:
            continue
        # The old type's defaults first: BASE has .jpg, .png and False.
        leaf.update(fields_of(config, leaf))
        leaf["type"] = BASE
        if leaf.get(REDUCE_ZERO_LABEL):
            reduced.append((key, kind.__name__))
    if reduced and REDUCE_ZERO_LABEL not in given:
        key, name = reduced[0]
        warnings.warn(
            f"{key} has reduce_zero_label=True of {name}: the mask value 0 is no class, 1 is "
            f"{names[0]!r}; reduce_zero_label=False in --cfg-options where 0 is",
            stacklevel=6,
        )


def fields_of(config: Config, leaf: dict[str, Any]) -> dict[str, Any]:
    """Return suffixes and ``reduce_zero_label`` of a data set: its own, else those of its type."""
    kind = data_set_class(config, leaf)
    # mmseg's types have them as defaults of their constructors, and nowhere else.
    parameters = {} if kind is None else inspect.signature(kind).parameters
    defaults = {name: parameters[name].default for name in FIELDS if name in parameters}
    return {**defaults, **{name: leaf[name] for name in FIELDS if name in leaf}}


def set_checks(config: Config, count: int) -> None:
    """Let the checks of masks in all pipelines of a config know the number of classes."""
    names = [*LOADERS, "train_pipeline", "test_pipeline", "tta_pipeline"]
    for step in transforms([config.get(name) for name in names]):
        if type_name(step) == CHECK:
            step["num_classes"] = count


def checks_in(leaf: dict[str, Any]) -> list[int]:
    """Return the numbers of classes that the checks of masks in a data set's pipeline know."""
    steps = transforms(leaf.get("pipeline"))
    return [step["num_classes"] for step in steps if type_name(step) == CHECK]


def leave_out_masks(config: Config, loader: str) -> None:
    """Let the data sets of a loader do without masks, which nobody will ask for."""
    for _, leaf in leaf_datasets(config, loader):
        prefixes = leaf.get("data_prefix") or {}
        leaf["data_prefix"] = {name: prefixes[name] for name in prefixes if name != PREFIX}
        leaf["pipeline"] = _without_masks(leaf.get("pipeline") or [])


def _without_masks(node: Any) -> Any:
    """Return transforms without those of masks, nor a list of views that held nothing else."""
    if isinstance(node, (list, tuple)):
        items = [
            _without_masks(item)
            for item in node
            if not (isinstance(item, dict) and type_name(item) in ("LoadAnnotations", CHECK))
        ]
        # TestTimeAug takes the product of its lists: an empty one would leave no view at all.
        return [item for item in items if item != []]
    if isinstance(node, dict) and "transforms" in node:
        return {**node, "transforms": _without_masks(node["transforms"])}
    return node
