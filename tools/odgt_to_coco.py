"""Converts CrowdHuman's .odgt files to a COCO file.

python tools/odgt_to_coco.py annotation_train.odgt Images --out train.json

A line of the file is an image, in JSON. The full boxes (``fbox``, which may leave the image) of
persons are the objects; ``--box vbox`` takes the visible ones, ``--box hbox`` the heads. What is to
be ignored, and what is tagged ``mask``, becomes a crowd region: neither learned nor counted as
missed. The two other boxes of a person are kept as ``vis_bbox``, ``head_bbox`` and ``full_bbox``.

mmdet's own CrowdHumanDataset, as in detection/configs/crowd_human, reads .odgt as it is.
"""

import argparse
import json
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
from tools.input_files import Mistakes, images_by_stem

NAME = "odgt_to_coco"
PERSON = "person"
REGION = "mask"  # the other tag: people in a picture, on a poster, in a mirror
FIELDS = {"fbox": "full_bbox", "vbox": "vis_bbox", "hbox": "head_bbox"}


def parse_person(entry: Any, box_key: str) -> tuple[list[float], bool, dict[str, Any]]:
    """Returns the box of an entry of ``gtboxes``, whether to ignore it, and its other boxes.

    Args:
        entry: The entry.
        box_key: ``fbox``, ``vbox`` or ``hbox``.

    Raises:
        ValueError: It is not as CrowdHuman's are.
    """
    if not isinstance(entry, dict) or entry.get("tag") not in (PERSON, REGION):
        tag = entry.get("tag") if isinstance(entry, dict) else entry
        raise ValueError(f"expected the tag {PERSON} or {REGION}, got {tag!r}")
    boxes = {key: entry[key] for key in FIELDS if key in entry}
    for key in {box_key, *boxes}:
        if not _is_box(boxes.get(key)):
            raise ValueError(f"expected {key} with 4 numbers, got {boxes.get(key)!r}")
    details = [entry.get("extra", {})]
    if box_key == "hbox":
        details.append(entry.get("head_attr", {}))
    ignored = entry["tag"] == REGION or any(
        isinstance(detail, dict) and bool(detail.get("ignore")) for detail in details
    )
    others = {FIELDS[key]: box for key, box in boxes.items() if key != box_key}
    return boxes[box_key], ignored, others


def _is_box(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 4
        and all(isinstance(x, (int, float)) and math.isfinite(x) for x in value)
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog=NAME, description="Converts CrowdHuman's .odgt to COCO.")
    parser.add_argument("annotations", type=Path, metavar="ODGT", help="a line of JSON an image")
    parser.add_argument("images", type=Path, metavar="IMAGES", help="folder of images, ID.jpg")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the COCO file")
    parser.add_argument("--box", choices=tuple(FIELDS), default="fbox", help="the box to learn")
    parser.add_argument("--overwrite", action="store_true", help="replace the file")
    args = parser.parse_args(arguments)
    return run_tool(NAME, lambda: _convert(args))


def _convert(args: argparse.Namespace) -> None:
    check_target(args.out, tool=NAME, flag="--out", overwrite=args.overwrite)
    if not args.images.is_dir():
        raise ValueError(f"{NAME}: expected a folder of images, got no folder {args.images}")
    lines = args.annotations.read_text(encoding="utf-8").splitlines()
    images = images_by_stem(args.images)
    builder, mistakes = CocoBuilder((PERSON,)), Mistakes(NAME)
    num_empty = 0
    with progress(str(args.annotations), len(lines)) as advance:
        for number, line in enumerate(lines, 1):
            advance(1)
            if not line.strip():
                continue
            try:
                num_empty += _convert_line(builder, line, images, args)
            except (OSError, ValueError) as error:
                mistakes.add(args.annotations, str(error), line=number)
    if not lines:
        mistakes.add(args.annotations, "expected a line of JSON an image, got an empty file")
    mistakes.stop_if_any()
    builder.write(args.out)
    if num_empty:
        print(f"{args.out}: {num_empty:,} boxes without width or height were left out")


def _convert_line(
    builder: CocoBuilder, line: str, images: dict[str, str], args: argparse.Namespace
) -> int:
    """Adds the image of a line; returns how many of its boxes are left out.

    Raises:
        ValueError: The line is not as CrowdHuman's are, or its image is missing or none.
        OSError: The image cannot be read.
    """
    try:
        entry = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"expected JSON, got {line[:40]!r} ({error})") from error
    key = entry.get("ID") if isinstance(entry, dict) else None
    people = entry.get("gtboxes") if isinstance(entry, dict) else None
    if not isinstance(key, str) or not isinstance(people, list):
        raise ValueError(f"expected an object with ID and gtboxes, got {line[:40]!r}")
    if key not in images:
        raise ValueError(f"expected an image {key}.jpg in {args.images}, got none")
    parsed = [parse_person(person, args.box) for person in people]
    image_id = builder.add_image(images[key], upright_size(args.images / images[key]))
    num_empty = 0
    for box, ignored, others in parsed:
        if box[2] <= 0 or box[3] <= 0:  # a head that nobody sees
            num_empty += 1
        else:
            builder.add_object(image_id, PERSON, box, crowd=ignored, **others)
    return num_empty


if __name__ == "__main__":
    sys.exit(main())
