"""Data sets against disk and model, before hours are spent: config in, one clear error out."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from internimage.integrations.openmmlab.data.coco_check import require_trainable
from internimage.integrations.openmmlab.data.mask_check import require_masks
from internimage.integrations.openmmlab.data.mask_file import IGNORED, NUM_LABELS
from internimage.integrations.openmmlab.data.mask_pairs import files_below
from internimage.integrations.openmmlab.scripts import own_masks
from internimage.integrations.openmmlab.scripts.config_parts import (
    CLASSES,
    EVALUATORS,
    annotation_path,
    data_set_class,
    heads,
    is_driving,
    leaf_datasets,
    transforms,
    type_name,
)
from internimage.integrations.openmmlab.scripts.own_classes import class_names_of

TRAIN = ("train_dataloader", "val_dataloader")
TEST = ("test_dataloader",)

# COCO's own files are known to be right, and take long to read. Own data may have the same names.
KNOWN_FILES = tuple(
    f"{kind}_{part}2017.json" for kind in ("instances", "image_info") for part in ("train", "val")
)
SHOWN = 5  # names in a message
USUAL_ROOTS = {
    "ADE20KDataset": ("data/ADEChallengeData2016",),
    "COCOStuffDataset": ("data/coco_stuff164k", "data/coco_stuff10k"),
    "CityscapesDataset": ("data/cityscapes", "data"),
    "ChaseDB1Dataset": ("data/CHASE_DB1",),
    "DRIVEDataset": ("data/DRIVE",),
    "HRFDataset": ("data/HRF",),
    "LoveDADataset": ("data/loveDA",),
    "MapillaryToCityscapesDataset": ("data",),
    "PascalContextDataset": ("data/VOCdevkit/VOC2010",),
    "PascalContextDataset59": ("data/VOCdevkit/VOC2010",),
    "PascalVOCDataset": ("data/VOCdevkit/VOC2012",),
    "PotsdamDataset": ("data/potsdam",),
    "STAREDataset": ("data/STARE",),
}
"""Where the configs have public sets: there masks are known to be right. NYU's are made by hand."""

# CheckSegMap looks into all the others as they are loaded.
NUM_MASKS = 50
"""Masks of a set that are looked into."""


def check_data(config: Config, loaders: Sequence[str]) -> None:
    """Check the data sets of a config: files, numbers of classes, the content of COCO files, masks.

    Args:
        config: With the keys for own data applied.
        loaders: ``TRAIN`` or ``TEST``.

    Raises:
        ValueError: A file or folder is missing, the model and a data set disagree on the classes,
            or annotations or masks cannot be trained with; the message names the key.
    """
    for loader in loaders:
        for key, leaf in leaf_datasets(config, loader):
            _check_paths(key, leaf)
    for name, loader in EVALUATORS.items():
        if loader in loaders:
            _check_evaluator(name, config.get(name))
    if is_driving(config):
        return  # its readers check what they read, and its classes are the data set's own
    larger: dict[str, str] = {}  # by head, so that two data sets do not say it twice
    for loader in loaders:
        for key, leaf in leaf_datasets(config, loader):
            names = class_names_of(config, leaf)
            if names is not None:
                larger |= _check_num_classes(config, key, leaf, names)
            if own_masks.is_semantic(config):
                _check_masks(config, key, leaf, names)
            else:
                _check_content(config, key, leaf, is_trained=loader == "train_dataloader")
    for text in larger.values():
        warnings.warn(text, stacklevel=2)


def _check_paths(key: str, leaf: dict[str, Any]) -> None:
    if leaf.get("backend_args") or leaf.get("file_client_args"):
        return  # not on this disk
    root = leaf.get("data_root") or ""
    ann_file = leaf.get("ann_file")
    if isinstance(ann_file, str) and ann_file and not os.path.exists(annotation_path(leaf)):
        raise ValueError(
            f"expected a file at {key}.ann_file = {annotation_path(leaf)}, got none; data_root, "
            "train_ann_file and val_ann_file in --cfg-options say where it is"
        )
    for name, prefix in (leaf.get("data_prefix") or {}).items():
        folder = os.path.join(root, prefix or "")
        if isinstance(prefix, str) and folder and not os.path.isdir(folder):
            kind = "seg_map" if name == own_masks.PREFIX else "img"
            raise ValueError(
                f"expected a folder at {key}.data_prefix.{name} = {folder}, got none; data_root, "
                f"train_{kind}_prefix and val_{kind}_prefix in --cfg-options say where it is"
            )


def _check_evaluator(name: str, metrics: Any) -> None:
    for metric in metrics if isinstance(metrics, (list, tuple)) else [metrics]:
        path = metric.get("ann_file") if isinstance(metric, dict) else None
        if isinstance(path, str) and not metric.get("backend_args") and not os.path.isfile(path):
            raise ValueError(f"expected a file at {name}.ann_file = {path}, got none")


def _check_num_classes(
    config: Config, key: str, leaf: dict[str, Any], names: Sequence[str]
) -> dict[str, str]:
    """Compare the heads with a data set; return what to say of larger ones, by head."""
    larger = {}
    for head, settings in heads(config):
        count = settings["num_classes"]
        if count == len(names):
            continue
        shown = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
        is_public = names == getattr(data_set_class(config, leaf), "METAINFO", {}).get(CLASSES)
        if count > len(names) and own_masks.is_semantic(config) and is_public:
            # Released segmentors have outputs that no class belongs to.
            larger[head] = (
                f"{head}.num_classes = {count} is more than the {len(names)} classes of {key}"
            )
            continue
        raise ValueError(
            f"expected {head}.num_classes = {len(names)}, the number of classes of {key} "
            f"({shown}), got {count}; classes=\"('NAME', ...)\" in --cfg-options sets both"
        )
    return larger


def _check_masks(
    config: Config, key: str, leaf: dict[str, Any], names: Sequence[str] | None
) -> None:
    """Pair images and masks, and look into some of them; public sets are known to be right."""
    if names is None:
        raise ValueError(
            f"expected the names of the classes of {key}, got none; "
            "classes=\"('NAME', ...)\" in --cfg-options sets them"
        )
    for count in own_masks.checks_in(leaf):
        if count != len(names):
            raise ValueError(
                f"expected CheckSegMap.num_classes = {len(names)} in {key}.pipeline, the number "
                f"of classes of the data set, got {count}; classes=\"('NAME', ...)\" in "
                "--cfg-options sets both"
            )
    if leaf.get("backend_args"):
        return
    root, prefixes = leaf.get("data_root") or "", leaf.get("data_prefix") or {}
    images = Path(root, prefixes.get("img_path") or "")
    listed = None
    if leaf.get("ann_file") and os.path.isfile(annotation_path(leaf)):
        lines = Path(annotation_path(leaf)).read_text(encoding="utf-8").splitlines()
        listed = [line.strip() for line in lines if line.strip()]
    fields = own_masks.fields_of(config, leaf)
    suffix = fields.get("img_suffix", ".jpg")
    if listed is None:
        has_images = any(name.endswith(suffix) for name in files_below(images))
    else:
        has_images = bool(listed)
    if not has_images:
        where = f"of the name {images}/*{suffix}" if listed is None else annotation_path(leaf)
        raise ValueError(
            f"expected images in {key}, got no images {where}; data_root, train_img_prefix, "
            "val_img_prefix and img_suffix in --cfg-options say where they are"
        )
    if prefixes.get(own_masks.PREFIX) is None or _is_known(config, leaf):
        return
    report = require_masks(
        images,
        Path(root, prefixes[own_masks.PREFIX]),
        classes=_labels_in_masks(config, leaf, names),
        ignore_index=leaf.get("ignore_index", IGNORED),
        names=listed,
        limit=NUM_MASKS,
        **fields,
    )
    for fault in report.faults:
        if fault.effect == "dropped":
            warnings.warn(f"{key}: {fault.describe()}", stacklevel=2)


def _is_known(config: Config, leaf: dict[str, Any]) -> bool:
    """Return whether the masks of a set are left alone: public ones, and what is told otherwise.

    A public set is one where the configs look for its type. Types that list their images in a way
    of their own, and pipelines that read masks so, know better.
    """
    kind = data_set_class(config, leaf)
    base = data_set_class(config, {"type": own_masks.BASE})
    # The same function: the type inherits it.
    lists = getattr(kind, "load_data_list", None) is getattr(base, "load_data_list", None)
    steps = [type_name(step) for step in transforms(leaf.get("pipeline"))]
    root = os.path.normpath(leaf.get("data_root") or "")
    is_public = root in USUAL_ROOTS.get(type_name(leaf), ())
    return is_public or not lists or "LoadAnnotations" not in steps


def _labels_in_masks(config: Config, leaf: dict[str, Any], names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of a mask's labels: the classes, unless the type maps labels to them."""
    kind = data_set_class(config, leaf)
    mapped = kind.get_label_map((leaf.get("metainfo") or {}).get(CLASSES))
    if not mapped:
        return tuple(names)
    # require_masks takes 255 classes at most; 255 itself is ignored.
    count = min(max(mapped) + 1, NUM_LABELS - 1)
    return tuple(f"label {label}" for label in range(count))


def _check_content(config: Config, key: str, leaf: dict[str, Any], *, is_trained: bool) -> None:
    """Read the annotations of a set in COCO's format."""
    path = Path(annotation_path(leaf))
    # Other types read other files, or read COCO's in their own way.
    if type_name(leaf) != "CocoDataset" or leaf.get("backend_args"):
        return
    has_own_classes = (leaf.get("metainfo") or {}).get(CLASSES) is not None
    if path.name in KNOWN_FILES and not has_own_classes:
        return
    prefixes = leaf.get("data_prefix") or {}
    folder = prefixes.get("img") or prefixes.get("img_path") or ""
    is_filtered = is_trained and not leaf.get("test_mode")  # mmdet filters no set in test mode
    filters = (leaf.get("filter_cfg") or {}) if is_filtered else {}
    pipeline = leaf.get("pipeline") or []
    report = require_trainable(
        path,
        classes=class_names_of(config, leaf),
        masks=any(step.get("with_mask") for step in pipeline),
        evaluated=not is_trained,
        min_size=filters.get("min_size", 0),
        folder=Path(leaf.get("data_root") or "", folder),
        reads_empty=not filters.get("filter_empty_gt"),
    )
    for fault in report.faults:
        if fault.effect == "dropped":
            warnings.warn(f"{key}: {fault.describe()}", stacklevel=2)


def require_images(dataset: Any) -> None:
    """Refuse a data set that turned out empty: a sampler without end would look for ever.

    Raises:
        ValueError: No image of the set can be trained with, or evaluated.
    """
    if not hasattr(dataset, "__len__") or len(dataset):
        return
    metainfo = getattr(dataset, "metainfo", {})
    part = "val" if getattr(dataset, "test_mode", False) else "train"
    names = ", ".join(map(str, (metainfo.get(CLASSES) or ())[:SHOWN]))
    raise ValueError(
        f"expected images with objects in {part}_dataloader.dataset, got none: no annotation is "
        f"of a class of the data set ({names}, ...), or filter_cfg leaves no image; "
        "\"classes=('NAME', ...)\" in --cfg-options are the names that the annotations have"
    )
