"""Finds what is wrong with a COCO data set before hours are spent on it.

python tools/check_coco.py annotations/train.json train

Prints a table of what was found: how often, what a training makes of it, the first examples; then
the boxes of each class. Exit code 1: something would stop a training or an evaluation, or spoil it.
With ``--fix OUT.json`` a cleaned file is written, and the exit code is that file's.
"""

import argparse
import dataclasses
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from internimage.openmmlab_needed import openmmlab_needed
from internimage.threads import map_in_order
from tools.command_line import progress, run_tool

with openmmlab_needed("check_coco"):
    from internimage.integrations.openmmlab.data.coco_check import (
        CocoReport,
        check_coco,
        read_coco,
    )
    from internimage.integrations.openmmlab.data.coco_faults import KINDS
    from internimage.integrations.openmmlab.data.faults import Findings, fault_lines, in_order
    from internimage.integrations.openmmlab.data.image_files import check_image
    from tools.coco_files import check_target, write_json
    from tools.coco_repair import repair

NAME = "check_coco"
FOUND_STOPPING = 1
MIN_SIZE = 32

ImageFault = tuple[int, str, str, tuple[int, int] | None]
"""Index of an image, kind of fault, example, and the file's width and height where known."""


def check_images(
    content: Mapping[str, Any], folder: Path, *, workers: int, decode: bool
) -> Iterator[ImageFault | None]:
    """Yields for each image, in order, what is wrong with its file, or None.

    Args:
        content: Of the annotation file.
        folder: The images' folder.
        workers: Threads; the decoders let each other work.
        decode: Whether to decode each image: finds the truncated ones, takes longer.
    """

    def check(numbered: tuple[int, Mapping[str, Any]]) -> ImageFault | None:
        index, image = numbered
        return _check_image(index, image, folder, decode)

    return map_in_order(check, enumerate(content["images"]), workers=workers)


def _check_image(
    index: int, image: Mapping[str, Any], folder: Path, decode: bool
) -> ImageFault | None:
    name = image.get("file_name")
    if not isinstance(name, str):
        return None  # a bad image, found in the annotations already
    path = folder / name
    size, kind, example = check_image(path, decode=decode)
    said = (image.get("width"), image.get("height"))
    if size is not None and said != size:
        example = f"{path} is {size[0]}x{size[1]}, not {said[0]}x{said[1]}"
        return index, "wrong size", example, size
    return (index, kind, example, size) if kind else None


def with_images(report: CocoReport, images: Sequence[ImageFault]) -> CocoReport:
    """Returns the report with what was found in the image files."""
    found = Findings(KINDS)
    for index, kind, example, _ in images:
        found.add(kind, example, index)
    return dataclasses.replace(report, faults=in_order((*report.faults, *found.faults()), KINDS))


def describe(report: CocoReport) -> str:
    """Returns the faults and the boxes of each class as two tables, a line a fact: not wrapped."""
    lines = fault_lines(report.faults)
    lines += ["", f"{'boxes':>9}  class"] if lines else [f"{'boxes':>9}  class"]
    lines += [f"{count:>9,}  {name}" for name, count in report.histogram.items()]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog=NAME, description="Checks a COCO data set.")
    parser.add_argument("annotations", type=Path, metavar="ANNOTATION", help="the JSON file")
    parser.add_argument(
        "images", type=Path, nargs="?", metavar="IMAGES", help="their folder; without, no look"
    )
    parser.add_argument(
        "--classes", nargs="+", metavar="NAME", help="those to learn, in their order"
    )
    parser.add_argument(
        "--min-size", type=float, default=MIN_SIZE, metavar="N",
        help="smaller images are not learned: filter_cfg.min_size, of the configs 32",
    )  # fmt: skip
    parser.add_argument("--masks", action="store_true", help="every object needs a mask")
    parser.add_argument(
        "--no-decode", action="store_true", help="read the images' headers alone: faster"
    )
    parser.add_argument("--workers", type=int, default=4, metavar="N", help="threads")
    parser.add_argument("--fix", type=Path, metavar="OUT.json", help="write a cleaned file")
    parser.add_argument("--overwrite", action="store_true", help="replace the file of --fix")
    args = parser.parse_args(arguments)
    stopping = False

    def tool() -> None:
        nonlocal stopping
        stopping = _check(args)

    return run_tool(NAME, tool) or (FOUND_STOPPING if stopping else 0)


def _check(args: argparse.Namespace) -> bool:
    """Does the work; returns whether anything would stop a training."""
    if args.workers < 1:
        raise ValueError(f"{NAME}: expected --workers >= 1, got {args.workers}")
    if args.images is not None and not args.images.is_dir():
        raise ValueError(f"{NAME}: expected a folder of images, got no folder {args.images}")
    if args.fix is not None:
        check_target(args.fix, tool=NAME, flag="--fix", overwrite=args.overwrite)
    content = read_coco(args.annotations)
    report = check_coco(content, classes=args.classes, masks=args.masks, min_size=args.min_size)
    found: list[ImageFault] = []
    if args.images is not None:
        decode = not args.no_decode
        with progress("images", report.num_images) as advance:
            for fault in check_images(content, args.images, workers=args.workers, decode=decode):
                advance(1)
                found += [fault] if fault is not None else []
        report = with_images(report, found)
    print(describe(report))
    counts = Counter({fault.kind: fault.count for fault in report.faults})
    print(
        f"\n{args.annotations}: {report.num_images:,} images ({counts['empty image']:,} empty), "
        f"{report.num_annotations:,} annotations ({counts['crowd region']:,} crowd regions), "
        f"{len(report.histogram)} classes; {len(report.stopping)} kinds of fault would stop or "
        "spoil a training"
    )
    if args.fix is None:
        return bool(report.stopping)
    sizes = {index: size for index, kind, _, size in found if kind == "wrong size" and size}
    lost = {index for index, kind, _, _ in found if kind in ("missing image", "unreadable image")}
    cleaned, done = repair(content, sizes=sizes, lost=lost, masks=args.masks)
    write_json(args.fix, cleaned)
    for what, count in done.items():
        print(f"{args.fix}: {count:,} x {what}")
    left = check_coco(cleaned, classes=args.classes, masks=args.masks).stopping
    print(
        f"{args.fix}: {len(cleaned['images']):,} images, {len(cleaned['annotations']):,} "
        f"annotations" + "".join(f"; still {fault.describe()}" for fault in left)
    )
    return bool(left)


if __name__ == "__main__":
    sys.exit(main())
