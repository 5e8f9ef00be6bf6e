"""The faults that an annotation of a COCO file can have, and what today's mmdet makes of each.

Boxes are COCO's: x, y, width, height in pixels.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from internimage.integrations.openmmlab.data.faults import Effect
from internimage.integrations.openmmlab.data.image_files import IMAGE_KINDS

Sizes = dict[int | str, tuple[float, float]]
"""Width and height of each image id, pixels."""

KINDS: dict[str, tuple[Effect, str]] = {
    # the file's lists
    "no images": ("stops", "there is nothing to learn from"),
    "no boxes": ("stops", "no image has a box that counts"),
    "bad category": ("stops", "no id or no name, one that is there twice, or an id that is no int"),
    "missing class": ("stops", "a wanted class is not in the file"),
    "order of classes": ("stops", "names would go to the wrong boxes; give the file's order"),
    "bad image": ("stops", "an image without id, file_name, width or height"),
    "duplicate image id": ("stops", "one image hides the other"),
    "bad annotation": ("stops", "an annotation without id, image_id or category_id"),
    "duplicate annotation id": ("stops", "mmdet refuses the file"),
    # the image files, which only tools/check_coco.py opens
    **IMAGE_KINDS,
    "wrong size": ("stops", "the file has another width or height: boxes and masks do not fit"),
    # single annotations
    "no box": ("stops", "no bbox of four numbers"),
    "not finite": ("stops", "a box with NaN or infinity"),
    # mmdet reads ann["area"] of each box, pycocotools ann["iscrowd"]: both end in a KeyError
    "no area": ("stops", "no number under area, which mmdet reads"),
    "no iscrowd": ("stops", "no iscrowd, which the evaluation reads"),
    "no mask": ("stops", "no segmentation, and masks are to be learned"),
    "bad polygon": ("stops", "a polygon that is no list of numbers, or has NaN or infinity"),
    "bad run lengths": ("stops", "counts that do not fill the image, or another size"),
    "corners": ("stops", "area or polygon say that the box is x1, y1, x2, y2; give x, y, w, h"),
    "unknown category": ("dropped", "a category_id without a category"),
    "unknown image": ("dropped", "an image_id without an image; 7 and '7' are two"),
    "other class": ("dropped", "a box of a class that is not among the wanted ones"),
    "negative size": ("dropped", "a box of negative width or height"),
    "zero area": ("dropped", "a box or an area of nothing, or of less than a pixel"),
    "outside": ("dropped", "a box wholly outside its image"),
    "small image": ("dropped", "an image whose shorter side is below filter_cfg.min_size"),
    "short polygon": ("dropped", "polygons of less than three points, or half a point"),
    # worth knowing
    "partly outside": ("noted", "a box that crosses its image's border by more than a pixel"),
    # pycocotools keeps the id of the matched object, and takes 0 for "no match"
    "annotation id 0": ("noted", "COCO's evaluation counts it as never found"),
    "crowd region": ("noted", "neither learned nor counted as missed"),
    "ignored": ("noted", "ignore is set: not learned, yet counted when missed"),
    "empty image": ("noted", "no box: a detector skips it unless filter_empty_gt=False"),
    "class without boxes": ("noted", "there is nothing to learn of it"),
    "gap in category ids": ("noted", "harmless: ids are numbered anew"),
}
"""Each kind of fault: its effect and what it is, in the order of reports."""


def faults_of(
    annotation: Mapping[str, Any],
    sizes: Sizes,
    names: Mapping[int, str],
    *,
    masks: bool,
) -> list[str]:
    """Return the kinds of all faults that one annotation has by itself.

    Args:
        annotation: an entry of the file's ``annotations``.
        sizes: width and height of each image, pixels.
        names: the name of each category.
        masks: whether each object needs a mask.
    """
    image_id, category_id = annotation.get("image_id"), annotation.get("category_id")
    if not (
        is_id(annotation.get("id")) and is_id(category_id) and isinstance(image_id, (int, str))
    ):
        return ["bad annotation"]
    faults = []
    if annotation["id"] == 0:
        faults.append("annotation id 0")
    if category_id not in names:
        faults.append("unknown category")
    size = sizes.get(image_id)
    if size is None:
        faults.append("unknown image")
    if annotation.get("ignore"):
        faults.append("ignored")
    if annotation.get("iscrowd"):
        faults.append("crowd region")
    box, area = annotation.get("bbox"), annotation.get("area")
    if not isinstance(area, (int, float)):
        faults.append("no area")
    if not (
        isinstance(box, (list, tuple))
        and len(box) == 4
        and all(isinstance(value, (int, float)) for value in box)
    ):
        faults.append("no box")
    # JSON has no NaN, but Python's reader, which mmdet uses, takes it.
    elif not all(map(is_finite, box)) or not ("no area" in faults or is_finite(area)):
        faults.append("not finite")
    else:
        faults += _faults_of_box(box, size)
        if is_finite(area) and area <= 0 and "zero area" not in faults:
            faults.append("zero area")
    if masks or annotation.get("segmentation"):
        lost = any(KINDS[kind][0] == "dropped" for kind in faults)  # nobody asks for its mask
        faults += [] if lost else _faults_of_mask(annotation.get("segmentation"), size)
    return faults


def _faults_of_box(box: Sequence[float], size: tuple[float, float] | None) -> list[str]:
    x, y, width, height = box
    if width < 0 or height < 0:
        return ["negative size"]
    if width < 1 or height < 1:  # mmdet's own limit
        return ["zero area"]
    if size is None:
        return []
    if x >= size[0] or y >= size[1] or x + width <= 0 or y + height <= 0:
        return ["outside"]
    # A pixel's grace for programs that round.
    if x < -1 or y < -1 or x + width > size[0] + 1 or y + height > size[1] + 1:
        return ["partly outside"]
    return []


def is_given_by_corners(annotation: Mapping[str, Any]) -> bool:
    """Whether area or polygon contradict a box, and would fit it if it were x1, y1, x2, y2.

    One such annotation may be chance; it is a fault where most of a file's are like that.

    Args:
        annotation: one that :func:`faults_of` finds nothing in that stops.
    """
    x, y, width, height = map(float, annotation["bbox"])
    # A polygon tells more surely than an area, which may be made of the same wrong numbers.
    right, bottom = _far_corner(annotation.get("segmentation"))
    if right is not None and bottom is not None:
        is_corner = abs(right - width) <= 1 and abs(bottom - height) <= 1
        return is_corner and max(abs(right - x - width), abs(bottom - y - height)) > 1
    area = annotation["area"]
    as_corners = max(width - x, 0) * max(height - y, 0)
    # It has to fit the box by corners within 1 percent and miss the one by size by 5: the area of a
    # mask, which is less than its box's, fits neither.
    return abs(as_corners - area) <= 0.01 * area and abs(width * height - area) > 0.05 * area


def _far_corner(mask: Any) -> tuple[float | None, float | None]:
    """Return the greatest x and y of polygons, pixels."""
    if not isinstance(mask, list) or not mask or _faults_of_mask(mask, None):
        return None, None
    return (
        max(value for part in mask for value in part[0::2]),
        max(value for part in mask for value in part[1::2]),
    )


def _faults_of_mask(mask: Any, size: tuple[float, float] | None) -> list[str]:
    if not mask:
        return ["no mask"]
    if isinstance(mask, list):
        if not all(isinstance(part, list) and all(map(is_finite, part)) for part in mask):
            return ["bad polygon"]
        # x and y of three points or more.
        good = all(len(part) >= 6 and len(part) % 2 == 0 for part in mask)
        return [] if good else ["short polygon"]
    counts, shape = (mask.get("counts"), mask.get("size")) if isinstance(mask, dict) else (0, 0)
    if not isinstance(counts, (list, str)) or not isinstance(shape, list) or len(shape) != 2:
        return ["bad run lengths"]
    if not all(map(is_finite, [*shape, *(counts if isinstance(counts, list) else ())])):
        return ["bad run lengths"]
    # Text is COCO's packed form, which only pycocotools can count.
    fills = isinstance(counts, str) or (
        sum(counts) == shape[0] * shape[1] and min(counts, default=0) >= 0
    )
    # COCO writes a mask's size as height, width.
    fits = size is None or (shape[1], shape[0]) == tuple(size)
    return [] if fills and fits else ["bad run lengths"]


def describe(annotation: Mapping[str, Any], kind: str) -> str:
    """Say which annotation it is, and what it has."""
    shown = {
        "unknown category": ("category_id",),
        "unknown image": ("image_id",),
        "bad annotation": ("image_id", "category_id"),
        "zero area": ("bbox", "area"),
        "not finite": ("bbox", "area"),
        "no area": ("area",),
    }.get(kind, ("bbox",) if KINDS[kind][0] != "noted" or "outside" in kind else ())
    values = "".join(f", {key} {_short(annotation.get(key))}" for key in shown)
    return f"id {annotation.get('id')} in image {annotation.get('image_id')}{values}"


def _short(value: Any) -> str:
    """Write a value with its numbers to four digits, and no more than fits a line."""
    if isinstance(value, list):
        return f"[{', '.join(map(_short, value[:5]))}{', ...' if len(value) > 5 else ''}]"
    return f"{value:.4g}" if isinstance(value, float) else repr(value)[:40]


def is_id(value: Any) -> TypeGuard[int]:
    """Whether a value is a whole number."""
    return isinstance(value, int) and not isinstance(value, bool)  # True is an int in Python


def is_finite(value: Any) -> TypeGuard[float]:
    """Whether a value is a number other than NaN and infinity that a float can hold."""
    return isinstance(value, (int, float)) and abs(value) <= sys.float_info.max
