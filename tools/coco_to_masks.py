"""Draws semantic masks from the polygons and run lengths of a COCO file.

python tools/coco_to_masks.py annotations/train.json --out semantic/train

One PNG an image, under its name. Label 0 is the background, then the classes in the file's order.
Where objects overlap, the smaller one lies on top. With ``--ignore-background`` what no object
covers is not learned: label 255, and the first class is 0.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from internimage.openmmlab_needed import openmmlab_needed
from tools.coco_files import whole_folder
from tools.command_line import progress, run_tool
from tools.input_files import read_class_names
from tools.mask_files import IGNORED, MAX_CLASSES, MaskWriter, mask_names, top_names

with openmmlab_needed("coco_to_masks"):
    from pycocotools import mask as rle

    from internimage.integrations.openmmlab.data.coco_check import check_coco, read_coco

NAME = "coco_to_masks"
BACKGROUND = "background"


def draw(
    annotations: Sequence[Mapping[str, Any]],
    size: tuple[int, int],
    labels: Mapping[int, int],
    *,
    background: int,
) -> np.ndarray:
    """Returns the labels (H, W), uint8, of an image.

    Args:
        annotations: Its objects, with ``segmentation`` in polygons or run lengths. A polygon of
            less than three points is left out.
        size: Its width and height, pixels.
        labels: The label of each category id; objects of others are left out.
        background: The label of what no object covers.
    """
    width, height = size
    mask = np.full((height, width), background, dtype=np.uint8)
    covered = []
    for annotation in annotations:
        if annotation["category_id"] in labels:
            shape = annotation["segmentation"]
            if isinstance(shape, list):
                parts = [part for part in shape if _is_polygon(part)]
                if not parts:
                    continue
                runs = rle.merge(rle.frPyObjects(parts, height, width))
            elif isinstance(shape["counts"], list):
                runs = rle.frPyObjects(shape, height, width)
            else:
                runs = shape
            covered.append((int(rle.area(runs)), labels[annotation["category_id"]], runs))
    # Stable: of two as large the file's later one lies on top.
    for _, label, runs in sorted(covered, key=lambda entry: -entry[0]):
        mask[rle.decode(runs) > 0] = label
    return mask


def _is_polygon(part: Any) -> bool:
    return isinstance(part, list) and len(part) >= 6 and len(part) % 2 == 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog=NAME, description="Draws semantic masks of a COCO file.")
    parser.add_argument("annotations", type=Path, metavar="ANNOTATION", help="the JSON file")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to fill")
    parser.add_argument(
        "--classes", nargs="+", metavar="NAME", help="or a file of names; without, the file's"
    )
    parser.add_argument(
        "--ignore-background", action="store_true", help="what no object covers is not learned"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace masks that are there")
    args = parser.parse_args(arguments)
    return run_tool(NAME, lambda: _convert(args))


def _convert(args: argparse.Namespace) -> None:
    content = read_coco(args.annotations)
    report = check_coco(content, masks=True, evaluated=False)
    if report.stopping:
        raise ValueError(
            f"{NAME}: expected annotations with masks, got {args.annotations} with "
            + ", ".join(fault.describe() for fault in report.stopping)
        )
    ids = {entry["name"]: entry["id"] for entry in content["categories"]}
    names = read_class_names(args.classes, tool=NAME) if args.classes else tuple(ids)
    if missing := [name for name in names if name not in ids]:
        raise ValueError(
            f"{NAME}: expected --classes of the file ({', '.join(ids)}), got {', '.join(missing)}"
        )
    first = 0 if args.ignore_background else 1
    if first and BACKGROUND in names:
        raise ValueError(
            f"{NAME}: expected no class of the name {BACKGROUND}, which label 0 has; "
            "--ignore-background makes the file's the only one"
        )
    written = names if args.ignore_background else (BACKGROUND, *names)
    if len(written) > MAX_CLASSES:
        raise ValueError(f"{NAME}: expected at most 255 classes, got {len(written)}")
    labels = {ids[name]: label for label, name in enumerate(names, first)}
    images = content["images"]
    targets = list(mask_names([image["file_name"] for image in images]))
    if len(set(targets)) < len(targets):
        twice = next(name for name in targets if targets.count(name) > 1)
        raise ValueError(f"{NAME}: expected images of different names, got two for {twice}")
    if outside := [name for name in targets if name.startswith(("/", "../")) or "/../" in name]:
        raise ValueError(f"{NAME}: expected file names inside a folder, got {outside[0]}")
    objects: dict[Any, list[Mapping[str, Any]]] = {}
    for annotation in content["annotations"]:
        objects.setdefault(annotation["image_id"], []).append(annotation)
    with whole_folder(
        args.out, tool=NAME, overwrite=args.overwrite, content=top_names(targets)
    ) as folder:
        writer = MaskWriter(folder, written)
        with progress("masks", len(images)) as advance:
            for image, target in zip(images, targets, strict=True):
                advance(1)
                mask = draw(
                    objects.get(image["id"], []),
                    (int(image["width"]), int(image["height"])),
                    labels,
                    background=IGNORED if args.ignore_background else 0,
                )
                writer.write(target, mask)
    for fault in report.faults:
        if fault.effect == "dropped":
            print(fault.describe())
    print(writer.summary(args.out))


if __name__ == "__main__":
    sys.exit(main())
