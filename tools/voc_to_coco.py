"""Converts annotations in Pascal VOC's XML to a COCO file.

python tools/voc_to_coco.py VOCdevkit/VOC2007 VOCdevkit/VOC2012 --split trainval --out train.json

Each folder holds ``Annotations/*.xml`` and ``JPEGImages/*``, and where a split is named, the names
of its images in ``ImageSets/Main/SPLIT.txt``. Objects that are marked difficult become crowd
regions: neither learned nor counted as missed, as in Pascal's evaluation. Pascal's pixels count
from 1, COCO's from 0.
"""

import argparse
import math
import os
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from internimage.image import upright_size
from tools.coco_builder import CocoBuilder
from tools.coco_files import check_target
from tools.command_line import progress, run_tool
from tools.input_files import Mistakes, images_by_stem, read_class_names

NAME = "voc_to_coco"
CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass
class VocImage:
    """What is kept of an XML file.

    Args:
        file_name: The image, relative to the images' folder.
        size: Its width and height, pixels.
        objects: Name, corners and whether it is difficult, of each object.
    """

    file_name: str
    size: tuple[int, int]
    objects: list[tuple[str, tuple[float, ...], bool]] = field(default_factory=list)


def list_annotations(root: Path, split: str | None) -> list[Path]:
    """Returns the XML files of a folder of VOC, all of them or those of a split.

    Raises:
        ValueError: There are none.
        OSError: The list of the split cannot be read.
    """
    if split is None:
        paths = sorted((root / "Annotations").glob("*.xml"))
    else:
        lines = (root / "ImageSets" / "Main" / f"{split}.txt").read_text("utf-8").splitlines()
        # The lists of single classes have a second column: -1 where the class is not in the image.
        names = [words[0] for words in map(str.split, lines) if words and words[1:] != ["-1"]]
        paths = [root / "Annotations" / f"{name}.xml" for name in names]
    if not paths:
        raise ValueError(f"{NAME}: expected XML files in {root / 'Annotations'}, got none")
    return paths


def read_annotation(
    path: Path, images: dict[str, str], folder: Path, mistakes: Mistakes
) -> VocImage | None:
    """Reads an XML file.

    Args:
        path: The file.
        images: The images of ``folder`` by their names without suffix.
        folder: Where the images are.
        mistakes: Takes what is wrong.

    Returns:
        None where the file is of no use.
    """
    try:
        root = ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError) as error:
        mistakes.add(path, f"expected an XML file, got {error}")
        return None
    named = root.findtext("filename") or ""
    file_name = images.get(path.stem) or images.get(os.path.splitext(os.path.basename(named))[0])
    if file_name is None:
        mistakes.add(path, f"expected an image {path.stem}.* in {folder}, got none")
        return None
    try:
        size = upright_size(folder / file_name)
    except (OSError, ValueError) as error:
        mistakes.add(folder / file_name, str(error))
        return None
    image = VocImage(file_name, size)
    for number, element in enumerate(root.iter("object"), 1):
        name = (element.findtext("name") or "").strip()
        texts = [element.findtext(f"bndbox/{corner}") for corner in CORNERS]
        try:
            corners = tuple(float(text or "") for text in texts)
        except ValueError:
            corners = ()
        if not name or not corners or not all(map(math.isfinite, corners)):
            found = dict(zip(CORNERS, texts, strict=True))
            mistakes.add(
                path, f"expected object {number} with a name and a box, got {name} {found}"
            )
            continue
        difficult = (element.findtext("difficult") or "0").strip() == "1"
        image.objects.append((name, corners, difficult))
    return image


def to_box(
    corners: Sequence[float], size: tuple[int, int], *, zero_based: bool
) -> tuple[float, float, float, float]:
    """Returns COCO's x, y, width and height of a box of VOC.

    Args:
        corners: ``xmin``, ``ymin``, ``xmax``, ``ymax``: the first and last pixel, counted from 1.
        size: Width and height of the image, pixels.
        zero_based: They are edges, counted from 0, as some programs write them.

    Raises:
        ValueError: The box is empty or outside the image. It may cross the border.
    """
    xmin, ymin, xmax, ymax = corners
    first = 0 if zero_based else 1
    if min(xmin, ymin) < first:
        advice = "" if zero_based else "; if the first pixel is 0, say --zero-based"
        raise ValueError(f"expected a box that begins at {first} or later, got {corners}{advice}")
    x, y = xmin - first, ymin - first
    width, height = xmax - x, ymax - y
    if width <= 0 or height <= 0 or x >= size[0] or y >= size[1]:
        raise ValueError(f"expected a box in an image of {size[0]}x{size[1]}, got {corners}")
    return x, y, width, height


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog=NAME, description="Converts Pascal VOC's XML to COCO.")
    parser.add_argument(
        "roots", type=Path, nargs="+", metavar="VOC", help="folders such as VOC2007"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the COCO file")
    parser.add_argument("--split", metavar="NAME", help="a list in ImageSets/Main; without, all")
    parser.add_argument(
        "--classes", nargs="+", metavar="NAME", help="or a file of names; others are left out"
    )
    parser.add_argument(
        "--difficult", choices=("crowd", "keep", "drop"), default="crowd", help="what they become"
    )
    parser.add_argument(
        "--zero-based", action="store_true", help="boxes are edges that count from 0"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the file")
    args = parser.parse_args(arguments)
    return run_tool(NAME, lambda: _convert(args))


def _convert(args: argparse.Namespace) -> None:
    check_target(args.out, tool=NAME, flag="--out", overwrite=args.overwrite)
    names = read_class_names(args.classes, tool=NAME) if args.classes else None
    folders = [root / "JPEGImages" for root in args.roots]
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"{NAME}: expected a folder of images, got no folder {folder}")
    # One file may name images of several folders: from where all of them can be reached.
    base = Path(os.path.commonpath([folder.resolve() for folder in folders]))
    mistakes = Mistakes(NAME)
    images = []
    for root, folder in zip(args.roots, folders, strict=True):
        by_stem = images_by_stem(folder)
        paths = list_annotations(root, args.split)
        with progress(str(root), len(paths)) as advance:
            for path in paths:
                advance(1)
                image = read_annotation(path, by_stem, folder, mistakes)
                if image is not None:
                    place = (folder.resolve() / image.file_name).relative_to(base)
                    image.file_name = place.as_posix()
                    images.append((path, image))
    if names is None:
        names = tuple(sorted({entry[0] for _, image in images for entry in image.objects}))
    builder = CocoBuilder(names)
    for path, image in images:
        image_id = builder.add_image(image.file_name, image.size)
        for name, corners, difficult in image.objects:
            if name not in names or (difficult and args.difficult == "drop"):
                continue
            try:
                box = to_box(corners, image.size, zero_based=args.zero_based)
            except ValueError as error:
                mistakes.add(path, f"{name}: {error}")
                continue
            crowd = difficult and args.difficult == "crowd"
            builder.add_object(image_id, name, box, crowd=crowd)
    if not names:
        mistakes.add(args.roots[0], "expected objects, got none in any file")
    mistakes.stop_if_any()
    builder.write(args.out)
    print(f"file names are relative to {base}")


if __name__ == "__main__":
    sys.exit(main())
