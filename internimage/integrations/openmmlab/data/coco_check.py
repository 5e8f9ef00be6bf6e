"""What is wrong with a COCO annotation file, found before a training does. Opens no image.

The faults and their effects are in ``coco_faults``.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from internimage.integrations.openmmlab.data.coco_faults import (
    KINDS,
    Sizes,
    describe,
    faults_of,
    is_finite,
    is_given_by_corners,
    is_id,
)
from internimage.integrations.openmmlab.data.faults import Fault, Findings, stopping


@dataclasses.dataclass(frozen=True, kw_only=True)
class CocoReport:
    """What an annotation file holds.

    Args:
        num_images: entries of ``images``.
        num_annotations: entries of ``annotations``.
        histogram: boxes that count of each class, by name, in the file's order.
        faults: what was found, one entry a kind.
    """

    num_images: int
    num_annotations: int
    histogram: dict[str, int]
    faults: tuple[Fault, ...]

    @property
    def stopping(self) -> tuple[Fault, ...]:
        """Those that end a training or an evaluation."""
        return stopping(self.faults)


def read_coco(path: Path) -> dict[str, Any]:
    """Read an annotation file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no JSON, or not COCO's kind of it.
    """
    if not path.is_file():
        raise FileNotFoundError(f"read_coco: expected an annotation file, got no file {path}")
    try:
        # As mmdet reads it: no byte-order mark, no other encoding, which bytes would be taken in.
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(
            f"read_coco: expected a JSON file in UTF-8, got {path} ({error})"
        ) from error
    lists = ("images", "annotations", "categories")
    if not isinstance(content, dict) or not all(
        isinstance(content.get(key), list) and all(isinstance(x, dict) for x in content[key])
        for key in lists
    ):
        held = f"the keys {', '.join(content)[:80]}" if isinstance(content, dict) else "a list"
        raise ValueError(
            f"read_coco: expected COCO's lists {', '.join(lists)}, each of objects, got {path} "
            f"with {held or 'nothing'}"
        )
    return content


def require_trainable(
    path: Path,
    *,
    classes: Sequence[str] | None = None,
    masks: bool = False,
    evaluated: bool = True,
    min_size: float = 0,
    folder: Path | None = None,
    reads_empty: bool | None = None,
) -> CocoReport:
    """Check an annotation file and raise if a training on it would end in an exception later.

    Args:
        path: the JSON file.
        classes: the classes that are wanted, in their order; None takes the file's.
        masks: whether masks are learned.
        evaluated: whether the file is for the evaluation.
        min_size: images with a shorter side, pixels, are not learned.
        folder: where the images are; None does not look for them.
        reads_empty: whether images without annotations are read; None where the evaluation does.

    Returns:
        The report; its faults do not stop anything.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no COCO file, or has a fault that stops; all such are named.
    """
    content = read_coco(path)
    report = check_coco(
        content, classes=classes, masks=masks, evaluated=evaluated, min_size=min_size
    )
    reads_empty = evaluated if reads_empty is None else reads_empty
    missing = missing_images(content, folder, reads_empty=reads_empty) if folder else None
    if missing is not None:
        report = dataclasses.replace(report, faults=(*report.faults, missing))
    if report.stopping:
        faults = ", ".join(fault.describe() for fault in report.stopping)
        raise ValueError(
            f"require_trainable: expected annotations to train on, got {path} with {faults}; "
            f"python tools/check_coco.py lists all, and its --fix FILE writes what is whole"
        )
    return report


def missing_images(
    content: Mapping[str, Any], folder: Path, *, reads_empty: bool = True
) -> Fault | None:
    """Look for the image files in a listing of their folders; return the fault if some lack.

    Args:
        content: as :func:`read_coco` returns it.
        folder: where the images are.
        reads_empty: whether images without annotations are read as well; a training leaves them
            out unless filter_empty_gt is switched off.
    """
    annotated = {
        entry["image_id"]
        for entry in content["annotations"]
        if isinstance(entry.get("image_id"), (int, str))
    }
    # One listing a folder: a question a file is slow on network disks, with COCO's 118,000.
    listings: dict[Path, set[str]] = {}
    found = Findings(KINDS)
    for index, image in enumerate(content["images"]):
        name, key = image.get("file_name"), image.get("id")
        if not isinstance(name, str) or not isinstance(key, (int, str)):
            continue  # a bad image
        path = folder / name
        if path.parent not in listings:
            there = path.parent.is_dir()
            listings[path.parent] = set(os.listdir(path.parent)) if there else set()
        if path.name not in listings[path.parent] and (reads_empty or key in annotated):
            found.add("missing image", str(path), index)
    return next(iter(found.faults()), None)


def check_coco(
    content: Mapping[str, Any],
    *,
    classes: Sequence[str] | None = None,
    masks: bool = False,
    evaluated: bool = True,
    min_size: float = 0,
) -> CocoReport:
    """Check the content of an annotation file.

    Args:
        content: as :func:`read_coco` returns it; it is not changed.
        classes: the classes that are wanted, in their order; None takes the file's.
        masks: whether masks are learned, so that each object needs one.
        evaluated: whether the file is for the evaluation.
        min_size: images with a shorter side, pixels, are not learned.
    """
    images, annotations = content["images"], content["annotations"]
    found = Findings(KINDS)
    names = _check_categories(content["categories"], classes, found)
    sizes = _check_images(images, found)
    small = {key for key, size in sizes.items() if min(size) < min_size}
    boxes: Counter[int] = Counter()
    images_with_boxes: set[int | str] = set()
    ids: set[int] = set()
    corners: list[int] = []
    num_whole = 0
    for index, annotation in enumerate(annotations):
        faults = faults_of(annotation, sizes, names, masks=masks)
        if evaluated and "iscrowd" not in annotation:
            faults.append("no iscrowd")
        if "bad annotation" not in faults:
            if annotation["id"] in ids:
                faults.append("duplicate annotation id")
            ids.add(annotation["id"])
        for kind in faults:
            found.add(kind, describe(annotation, kind), index)
        # Only whole annotations can tell whether boxes are given by their corners.
        if not any(KINDS[kind][0] == "stops" for kind in faults) and "short polygon" not in faults:
            num_whole += 1
            corners += [index] if is_given_by_corners(annotation) else []
        name = names.get(annotation["category_id"]) if "bad annotation" not in faults else None
        if classes is not None and name is not None and name not in classes:
            found.add("other class", f"{name} in image {annotation['image_id']}", index)
        if _is_learned(annotation, faults) and annotation["image_id"] not in small:
            boxes[annotation["category_id"]] += 1
            if classes is None or names[annotation["category_id"]] in classes:
                images_with_boxes.add(annotation["image_id"])
    # A few may be chance; most are a mistake of the program that wrote the file.
    if len(corners) > num_whole / 2:
        for index in corners:
            found.add("corners", describe(annotations[index], "corners"), index)
    for index, image in enumerate(images):
        if not isinstance(image.get("id"), (int, str)):
            continue  # told already, as a bad image; a list as an id has no hash
        if image["id"] in small:
            width, height = sizes[image["id"]]
            found.add("small image", f"{image.get('file_name')} is {width}x{height}", index)
        elif image["id"] not in images_with_boxes:
            found.add("empty image", str(image.get("file_name")), index)
    for key, name in names.items():
        if not boxes[key] and (classes is None or name in classes):
            found.add("class without boxes", name)
    if not images:
        found.add("no images")
    elif not images_with_boxes:
        found.add("no boxes")
    return CocoReport(
        num_images=len(images),
        num_annotations=len(annotations),
        histogram={name: boxes[key] for key, name in names.items()},
        faults=found.faults(),
    )


def _is_learned(annotation: Mapping[str, Any], faults: Sequence[str]) -> bool:
    """Whether there is a box to learn from, with these faults."""
    if annotation.get("iscrowd") or annotation.get("ignore"):
        return False
    # The last two stop a run and say nothing about the box.
    return all(KINDS[kind][0] == "noted" or kind in ("no iscrowd", "no mask") for kind in faults)


def _check_categories(
    categories: Sequence[Mapping[str, Any]], classes: Sequence[str] | None, found: Findings
) -> dict[int, str]:
    """Return the name of each category id, in the file's order."""
    names: dict[int, str] = {}
    seen: set[str] = set()
    for index, category in enumerate(categories):
        key, name = category.get("id"), category.get("name")
        if is_id(key) and isinstance(name, str) and key not in names and name not in seen:
            names[key] = name
            seen.add(name)
        else:
            twice = ", there twice" if key in names or name in seen else ""
            found.add("bad category", f"{key!r} {name!r}{twice}", index)
    if names and len(names) < max(names) - min(names) + 1:
        missing = next(key for key in range(min(names), max(names)) if key not in names)
        found.add("gap in category ids", f"the first: {missing}")
    # mmdet numbers classes by the file's order, whatever the order of the names that it is given.
    if classes is not None:
        in_file = [name for name in names.values() if name in classes]
        for name in classes:
            if name not in in_file:
                held = ", ".join(names.values())[:200]
                found.add("missing class", f"{name!r} is not among {held}")
        wanted = [name for name in classes if name in in_file]
        if in_file != wanted:
            found.add("order of classes", f"{wanted}, in the file {in_file}")
    return names


def _check_images(images: Sequence[Mapping[str, Any]], found: Findings) -> Sizes:
    """Return the width and height of each image id, pixels."""
    sizes: Sizes = {}
    for index, image in enumerate(images):
        key, name = image.get("id"), image.get("file_name")
        width, height = image.get("width"), image.get("height")
        if not (
            isinstance(key, (int, str))
            and isinstance(name, str)
            and (is_finite(width) and width > 0)
            and (is_finite(height) and height > 0)
        ):
            found.add("bad image", f"image {key!r}, {name!r}", index)
        elif key in sizes:
            found.add("duplicate image id", f"{key} for {name}", index)
        else:
            sizes[key] = (width, height)
    return sizes
