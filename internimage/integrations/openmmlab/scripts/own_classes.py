"""The keys ``classes`` and ``palette``: names and colours to data sets, their number to heads."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any

from mmengine.config import Config

from internimage.integrations.openmmlab.scripts import own_masks
from internimage.integrations.openmmlab.scripts.config_parts import (
    CLASSES,
    LOADERS,
    PALETTE,
    data_set_class,
    heads,
    leaf_datasets,
)
from internimage.integrations.openmmlab.scripts.own_pipelines import inherited


def class_names_of(config: Config, leaf: dict[str, Any]) -> tuple[str, ...] | None:
    """Return the classes of a data set: those of its ``metainfo``, else those of its type."""
    given = (leaf.get("metainfo") or {}).get(CLASSES)
    if given is not None:
        return (given,) if isinstance(given, str) else tuple(given)
    names = getattr(data_set_class(config, leaf), "METAINFO", {}).get(CLASSES)
    return (names,) if isinstance(names, str) else names and tuple(names)


def set_classes(config: Config, given: Collection[str]) -> None:
    """Carry the classes to data sets, heads and checks of masks.

    Args:
        config: With ``classes``; changed in place.
        given: Keys of the command line.

    Raises:
        ValueError: They are no names, or not one of each; or a head was given another number.
    """
    names: Any = config[CLASSES]
    names = (names,) if isinstance(names, str) else names
    if not isinstance(names, (list, tuple)) or not names:
        raise ValueError(f"expected classes = names, such as ('cat', 'dog'), got {names!r}")
    names = tuple(str(name) for name in names)  # 7 on a command line is a number
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"expected classes once each, got {', '.join(twice)} twice")
    # The configs' losses are of a softmax, which over one class is 1 everywhere.
    if own_masks.is_semantic(config) and len(names) < 2:
        raise ValueError(
            "expected classes = at least two names for masks, such as ('background', 'road'), got "
            f"{names!r}"
        )
    config[CLASSES] = names
    # A number that a file has is the base's, and is replaced below; a typed one contradicts.
    for key, head in heads(config):
        if f"{key}.num_classes" in given and head["num_classes"] != len(names):
            raise ValueError(
                f"expected {key}.num_classes = {len(names)}, the number of classes "
                f"({', '.join(names)}), got {head['num_classes']}"
            )
    leaves = [pair for loader in LOADERS for pair in leaf_datasets(config, loader)]
    if own_masks.is_semantic(config):
        own_masks.release_types(config, leaves, given)
        own_masks.set_checks(config, len(names))
    for _, leaf in leaves:
        leaf["metainfo"] = {**(leaf.get("metainfo") or {}), CLASSES: names}
        # Colours of other classes, and of another number of them.
        leaf["metainfo"].pop(PALETTE, None)
    for key, head in heads(config):
        _set_num_classes(key, head, len(names))


def set_palette(config: Config, given: Collection[str]) -> None:
    """Carry colours to the data sets.

    A palette that a config has for other classes than the command line's is dropped, and so is one
    that it has from its bases beside classes of its own.

    Args:
        config: With ``palette``; changed in place.
        given: Keys of the command line.

    Raises:
        ValueError: It is no list of colours, or of another number of them.
    """
    palette = _colours(config[PALETTE])
    leaves = [pair for loader in LOADERS for pair in leaf_datasets(config, loader)]
    for key, leaf in leaves:
        names = class_names_of(config, leaf) or ()
        if len(names) == len(palette):
            leaf["metainfo"] = {**(leaf.get("metainfo") or {}), PALETTE: palette}
        elif PALETTE not in given and (CLASSES in given or _is_inherited(config, palette)):
            config.pop(PALETTE)  # a dump of the config would hold both
            return
        else:
            raise ValueError(
                f"expected palette = a colour for each of the {len(names)} classes of {key}, got "
                f"{len(palette)}"
            )


def _is_inherited(config: Config, palette: list[list[int]]) -> bool:
    older = [old for old in inherited(Path(config.filename), PALETTE) if old]
    return palette in [[list(colour) for colour in old] for old in older]


def _set_num_classes(key: str, head: dict[str, Any], count: int) -> None:
    old = head["num_classes"]
    head["num_classes"] = count
    losses = [loss for node in head.values() for loss in (node if _is_list(node) else [node])]
    for loss in losses:
        weights: Any = loss.get("class_weight") if isinstance(loss, dict) else None
        if not _is_list(weights):
            continue
        # A weight for each class and one for "no object", as Mask2Former has them.
        # The configs have one number for all classes, so that the first one stands for any.
        if len(weights) == old + 1:
            loss["class_weight"] = [*[weights[0]] * count, weights[-1]]
        elif len(weights) == old != count:
            del loss["class_weight"]
            warnings.warn(
                f"{key} has {old} weights of classes, which {count} others do without", stacklevel=5
            )


def _is_list(node: Any) -> bool:
    return isinstance(node, (list, tuple))


def _colours(palette: Any) -> list[list[int]]:
    for colour in palette if _is_list(palette) else [palette]:
        if not (
            _is_list(colour)
            and len(colour) == 3
            and all(isinstance(part, int) and 0 <= part <= 255 for part in colour)
        ):
            raise ValueError(
                f"expected palette = colours, such as [[220,20,60],[0,0,142]], got {colour!r}"
            )
    return [list(colour) for colour in palette]
