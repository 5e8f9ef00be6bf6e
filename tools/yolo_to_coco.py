"""Converts YOLO's text labels, boxes or polygons, to a COCO file.

python tools/yolo_to_coco.py images/train --classes data.yaml --out train.json

The labels of ``images/train/a.jpg`` are in ``labels/train/a.txt``, or below ``--labels``. A line is
an object: the class's number, then the centre, width and height of its box, or the points of its
polygon, all as shares of the image. An image without a file of labels has no objects.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from internimage.image import upright_size
from tools.coco_builder import CocoBuilder
from tools.coco_files import check_target
from tools.command_line import progress, run_tool
from tools.input_files import Mistakes, images_by_stem, read_class_names

NAME = "yolo_to_coco"
TOLERANCE = 0.005  # beyond 0 and 1: what programs round


def find_labels(images: Path) -> Path:
    """Returns the folder of labels that YOLO pairs with one of images: the last ``images`` in it.

    Raises:
        ValueError: No part of the path is called so.
    """
    parts = list(images.parts)
    if "images" not in parts:
        raise ValueError(
            f"{NAME}: expected --labels, or images in a folder called images, got {images}"
        )
    last = len(parts) - 1 - parts[::-1].index("images")
    return Path(*parts[:last], "labels", *parts[last + 1 :])


def parse_line(text: str, num_classes: int) -> tuple[int, list[float]]:
    """Returns the class and the shares of a line: four of a box, or six and more of a polygon.

    Raises:
        ValueError: It is no such line.
    """
    words = text.split()
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        raise ValueError(f"expected numbers, got {text!r}") from None
    label, shares = numbers[0], numbers[1:]
    if label not in range(num_classes):
        raise ValueError(f"expected a class from 0 to {num_classes - 1}, got {words[0]}")
    if len(shares) != 4 and (len(shares) < 6 or len(shares) % 2):
        raise ValueError(
            f"expected a class and 4 numbers of a box, or 6, 8, ... of a polygon, got {len(shares)}"
        )
    if not all(math.isfinite(x) and -TOLERANCE <= x <= 1 + TOLERANCE for x in shares):
        raise ValueError(f"expected shares of the image, 0-1, got {' '.join(words[1:])[:80]}")
    return int(label), shares


def to_object(
    shares: Sequence[float], size: tuple[int, int]
) -> tuple[list[float], float, list[list[float]] | None]:
    """Returns an object's box (x, y, width, height), area and polygon, in pixels.

    Args:
        shares: Of the image: centre, width and height, or x and y of each point.
        size: Width and height of the image, pixels.

    Raises:
        ValueError: It has no area.
    """
    if len(shares) == 4:
        x, y, width, height = shares
        xs, ys = [x - width / 2, x + width / 2], [y - height / 2, y + height / 2]
    else:
        xs, ys = list(shares[0::2]), list(shares[1::2])
    xs = [min(max(x, 0.0), 1.0) * size[0] for x in xs]
    ys = [min(max(y, 0.0), 1.0) * size[1] for y in ys]
    box = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
    if len(shares) == 4:
        area, polygon = box[2] * box[3], None
    else:
        pairs = zip(xs, ys, xs[1:] + xs[:1], ys[1:] + ys[:1], strict=True)
        area = abs(sum(x0 * y1 - x1 * y0 for x0, y0, x1, y1 in pairs)) / 2  # the shoelace formula
        polygon = [[round(z, 2) for point in zip(xs, ys, strict=True) for z in point]]
    if area <= 0:
        raise ValueError(f"expected an object with an area, got {' '.join(map(str, shares))[:80]}")
    return box, area, polygon


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog=NAME, description="Converts YOLO's labels to COCO.")
    parser.add_argument("images", type=Path, metavar="IMAGES", help="folder of images")
    parser.add_argument("--labels", type=Path, metavar="DIR", help="folder of their .txt files")
    parser.add_argument(
        "--classes", nargs="+", required=True, metavar="NAME", help="or a data.yaml, or a .txt"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the COCO file")
    parser.add_argument("--overwrite", action="store_true", help="replace the file")
    args = parser.parse_args(arguments)
    return run_tool(NAME, lambda: _convert(args))


def _convert(args: argparse.Namespace) -> None:
    check_target(args.out, tool=NAME, flag="--out", overwrite=args.overwrite)
    if not args.images.is_dir():
        raise ValueError(f"{NAME}: expected a folder of images, got no folder {args.images}")
    labels = args.labels or find_labels(args.images)
    if not labels.is_dir():
        raise ValueError(f"{NAME}: expected a folder of labels, got no folder {labels}")
    names = read_class_names(args.classes, tool=NAME)
    images = images_by_stem(args.images)
    if not images:
        raise ValueError(f"{NAME}: expected images in {args.images}, got none")
    builder, mistakes = CocoBuilder(names), Mistakes(NAME)
    with progress(str(args.images), len(images)) as advance:
        for stem, file_name in images.items():
            advance(1)
            _convert_image(builder, mistakes, args.images / file_name, file_name, labels, stem)
    for path in sorted(labels.rglob("*.txt")):
        stem = path.relative_to(labels).with_suffix("").as_posix()
        if stem not in images and path.name != "classes.txt":  # which LabelImg leaves there
            mistakes.add(path, f"expected an image {stem}.* in {args.images}, got none")
    mistakes.stop_if_any()
    builder.write(args.out)


def _convert_image(
    builder: CocoBuilder, mistakes: Mistakes, image: Path, name: str, labels: Path, stem: str
) -> None:
    try:
        size = upright_size(image)
    except (OSError, ValueError) as error:
        mistakes.add(image, str(error))
        return
    image_id = builder.add_image(name, size)
    path = labels / f"{stem}.txt"
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            label, shares = parse_line(line, len(builder.names))
            box, area, polygon = to_object(shares, size)
        except ValueError as error:
            mistakes.add(path, str(error), line=number)
            continue
        more: dict[str, Any] = {} if polygon is None else {"segmentation": polygon}
        builder.add_object(image_id, builder.names[label], box, area=area, **more)


if __name__ == "__main__":
    sys.exit(main())
