"""Draws semantic masks from the outlines of labelme's JSON files.

python tools/labelme_to_masks.py photos --out masks --classes road house tree

One PNG an image, named as the JSON file. Label 0 is the background, then the classes in the order
that is given; with ``--ignore-background`` what no outline covers is not learned (label 255), and
the first class is 0. Where outlines overlap, the file's later one lies on top.
"""

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.coco_files import whole_folder
from tools.command_line import progress, run_tool
from tools.input_files import Mistakes, read_class_names
from tools.mask_files import IGNORED, MAX_CLASSES, MaskWriter, mask_names, top_names

NAME = "labelme_to_masks"
BACKGROUND = "background"
NUM_POINTS = {"polygon": 3, "rectangle": 2, "circle": 2}
"""The least number of points of each shape; a circle's are its centre and one on its edge."""


def draw(content: Mapping[str, Any], labels: Mapping[str, int], *, background: int) -> np.ndarray:
    """Returns the labels (H, W), uint8, of a file.

    Args:
        content: Of the JSON file.
        labels: The label of each class.
        background: The label of what no outline covers.

    Raises:
        ValueError: It is no file of labelme's, has an unknown class, or a shape without an area.
    """
    width, height = content.get("imageWidth"), content.get("imageHeight")
    shapes = content.get("shapes")
    if not isinstance(width, int) or not isinstance(height, int) or not isinstance(shapes, list):
        raise ValueError("expected imageWidth, imageHeight and shapes, got none of this kind")
    if min(width, height) < 1:
        raise ValueError(f"expected an image of 1 pixel or more, got {width}x{height}")
    picture = Image.new("L", (width, height), background)
    canvas = ImageDraw.Draw(picture)
    for number, shape in enumerate(shapes, 1):
        if not isinstance(shape, dict):
            raise ValueError(f"expected shape {number} an object of JSON, got {shape!r}")
        name, kind = shape.get("label"), str(shape.get("shape_type", "polygon"))
        if not isinstance(name, str) or name not in labels:
            raise ValueError(f"expected shape {number} of {', '.join(labels)}, got {name!r}")
        points = _points(shape.get("points"))
        if kind not in NUM_POINTS or len(points) < NUM_POINTS[kind]:
            raise ValueError(
                f"expected shape {number} a polygon, rectangle or circle with its points, got "
                f"{kind!r} with {len(points)}"
            )
        if kind == "polygon":
            canvas.polygon(points, fill=labels[name])
        elif kind == "rectangle":
            (x0, y0), (x1, y1) = points[:2]
            canvas.rectangle((min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)), labels[name])
        else:
            canvas.circle(points[0], math.dist(*points[:2]), fill=labels[name])
    return np.asarray(picture)


def _points(value: Any) -> list[tuple[float, float]]:
    """Returns points of two finite numbers each, in pixels; none where one is not."""
    if not isinstance(value, list):
        return []
    points = [tuple(point) for point in value if isinstance(point, list) and len(point) == 2]
    numbers = [number for point in points for number in point]
    whole = all(isinstance(number, (int, float)) and math.isfinite(number) for number in numbers)
    return [(x, y) for x, y in points] if whole and len(points) == len(value) else []


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog=NAME, description="Draws masks of labelme's outlines.")
    parser.add_argument("folder", type=Path, metavar="DIR", help="JSON files; sub-folders too")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to fill")
    parser.add_argument(
        "--classes", nargs="+", required=True, metavar="NAME", help="or a file of names"
    )
    parser.add_argument(
        "--ignore-background", action="store_true", help="what no outline covers is not learned"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace masks that are there")
    args = parser.parse_args(arguments)
    return run_tool(NAME, lambda: _convert(args))


def _convert(args: argparse.Namespace) -> None:
    classes = read_class_names(args.classes, tool=NAME)
    names = classes if args.ignore_background else (BACKGROUND, *classes)
    if len(set(names)) < len(names) or len(names) > MAX_CLASSES:
        raise ValueError(
            f"{NAME}: expected at most 255 classes, none of them {BACKGROUND} unless with "
            f"--ignore-background, got {len(names)}: {', '.join(names)[:200]}"
        )
    if not args.folder.is_dir():
        raise ValueError(f"{NAME}: expected a folder of JSON files, got no folder {args.folder}")
    found = sorted(path.relative_to(args.folder) for path in args.folder.rglob("*.json"))
    if not found:
        raise ValueError(f"{NAME}: expected JSON files in {args.folder}, got none")
    labels = {name: label for label, name in enumerate(names)}
    background = IGNORED if args.ignore_background else labels[BACKGROUND]
    targets = list(mask_names([path.as_posix() for path in found]))
    mistakes = Mistakes(NAME)
    with whole_folder(
        args.out, tool=NAME, overwrite=args.overwrite, content=top_names(targets)
    ) as folder:
        writer = MaskWriter(folder, names)
        with progress("masks", len(found)) as advance:
            for path, target in zip(found, targets, strict=True):
                advance(1)
                try:
                    content = json.loads((args.folder / path).read_text(encoding="utf-8"))
                    if not isinstance(content, dict):
                        raise ValueError("expected a JSON object, got something else")
                    writer.write(target, draw(content, labels, background=background))
                except ValueError as error:  # what is no JSON or no text, too
                    mistakes.add(args.folder / path, str(error))
        mistakes.stop_if_any()
    print(writer.summary(args.out))


if __name__ == "__main__":
    sys.exit(main())
