"""Corrects in a COCO data set what can be corrected, and drops what cannot."""

import copy
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

from pycocotools import mask as rle

from internimage.integrations.openmmlab.data.coco_check import check_coco
from internimage.integrations.openmmlab.data.coco_faults import KINDS, is_finite

LISTS = ("images", "annotations", "categories")
LIST_OF_KIND = {"bad category": "categories", "bad image": "images", "duplicate image id": "images"}
"""Which list a kind's indices count in, where it is not the annotations'."""
RENUMBERED = ("duplicate annotation id", "annotation id 0")


def repair(
    content: Mapping[str, Any],
    *,
    sizes: Mapping[int, tuple[int, int]],
    lost: Collection[int],
    masks: bool,
) -> tuple[dict[str, Any], dict[str, int]]:
    """Returns a cleaned copy of an annotation file, and what was done how often.

    Classes keep their ids and empty images stay. Sizes become those of the files, boxes given by
    two corners get width and height, boxes end at their images' borders, ``area`` and ``iscrowd``
    are filled in, annotations are numbered anew where a number is 0 or used twice. Whatever would
    still stop a training, or be dropped by it without a word, is left out.

    Args:
        content: Of the annotation file; it is not changed.
        sizes: Width and height, pixels, of the image files that differ, by index.
        lost: Indices of the images that cannot be read: they go, with their annotations.
        masks: Whether every object needs a mask.
    """
    cleaned = {**content, **{key: copy.deepcopy(content[key]) for key in LISTS}}
    done: Counter[str] = Counter()
    for index, (width, height) in sizes.items():
        cleaned["images"][index].update(width=width, height=height)
        done["size of an image corrected"] += 1
    cleaned["images"] = _without(cleaned["images"], lost, "images dropped: unreadable", done)
    _drop(cleaned, done, masks=masks, only=tuple(LIST_OF_KIND))
    _turn_corners(cleaned, done, masks=masks)
    images = {image["id"]: image for image in cleaned["images"]}
    for annotation in cleaned["annotations"]:
        _correct(annotation, images, done)
    _drop(cleaned, done, masks=masks, only=tuple(KINDS))
    numbers = [annotation["id"] for annotation in cleaned["annotations"]]
    if 0 in numbers or len(set(numbers)) < len(numbers):
        for number, annotation in enumerate(cleaned["annotations"], 1):
            annotation["id"] = number
        done["annotations numbered anew"] = len(numbers)
    return cleaned, dict(done)


def _turn_corners(cleaned: dict[str, Any], done: Counter[str], *, masks: bool) -> None:
    """Gives width and height to the boxes that are two corners."""
    for fault in check_coco(cleaned, masks=masks).faults:
        if fault.kind == "corners":
            for index in fault.indices:
                x, y, right, bottom = cleaned["annotations"][index]["bbox"]
                cleaned["annotations"][index]["bbox"] = [x, y, right - x, bottom - y]
            done["boxes of two corners given width and height"] += fault.count


def _correct(
    annotation: dict[str, Any], images: Mapping[Any, Mapping[str, Any]], done: Counter[str]
) -> None:
    image_id = annotation.get("image_id")
    image = images.get(image_id) if isinstance(image_id, (int, str)) else None
    box = annotation.get("bbox")
    if image is None or not isinstance(box, list) or len(box) != 4 or not all(map(is_finite, box)):
        return  # dropped later
    x, y, width, height = box
    left, right = max(x, 0), min(x + width, image["width"])
    top, bottom = max(y, 0), min(y + height, image["height"])
    if (
        left < right
        and top < bottom
        and (left, top, right, bottom) != (x, y, x + width, y + height)
    ):
        annotation["bbox"] = [left, top, right - left, bottom - top]
        done["box cut off at the border"] += 1
    mask = annotation.get("segmentation")
    if isinstance(mask, list):
        whole = [p for p in mask if isinstance(p, list) and len(p) >= 6 and len(p) % 2 == 0]
        if len(whole) < len(mask) and whole:
            annotation["segmentation"] = mask = whole
            done["parts of a polygon dropped"] += 1
    if not is_finite(annotation.get("area")):
        annotation["area"] = _area(annotation, image)
        done["area filled in"] += 1
    if "iscrowd" not in annotation:
        annotation["iscrowd"] = 0
        done["iscrowd filled in"] += 1


def _area(annotation: Mapping[str, Any], image: Mapping[str, Any]) -> float:
    """Returns the pixels of an object: of its polygons, or else of its box."""
    mask = annotation.get("segmentation")
    if isinstance(mask, list) and mask and all(isinstance(p, list) and len(p) >= 6 for p in mask):
        runs = rle.frPyObjects(mask, image["height"], image["width"])
        return float(rle.area(rle.merge(runs)))
    return float(annotation["bbox"][2] * annotation["bbox"][3])


def _drop(
    cleaned: dict[str, Any], done: Counter[str], *, masks: bool, only: Collection[str]
) -> None:
    """Drops what has a fault of these kinds that stops a training or is dropped by it."""
    faults = check_coco(cleaned, masks=masks).faults
    indices: dict[str, dict[int, str]] = {key: {} for key in LISTS}
    for fault in faults:
        if fault.kind in only and fault.effect != "noted" and fault.kind not in RENUMBERED:
            for index in fault.indices:
                indices[LIST_OF_KIND.get(fault.kind, "annotations")].setdefault(index, fault.kind)
    for key, kinds in indices.items():
        for kind, count in Counter(kinds.values()).items():
            done[f"{key} dropped: {kind}"] += count
        cleaned[key] = [entry for i, entry in enumerate(cleaned[key]) if i not in kinds]


def _without(
    entries: list[Any], indices: Collection[int], what: str, done: Counter[str]
) -> list[Any]:
    if indices:
        done[what] += len(indices)
    return [entry for index, entry in enumerate(entries) if index not in indices]
