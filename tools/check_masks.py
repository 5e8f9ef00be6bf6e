"""Finds what is wrong with images and their semantic masks before hours are spent on them.

python tools/check_masks.py train/images train/masks --classes road house tree

Prints a table of what was found: how often, what a training makes of it, the first examples; then
each class's share of the labelled pixels and the number of masks that have it. Exit code 1:
something would stop a training or an evaluation, or spoil it.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from internimage.openmmlab_needed import openmmlab_needed
from tools.command_line import progress, run_tool
from tools.input_files import read_class_names

with openmmlab_needed("check_masks"):
    from internimage.integrations.openmmlab.data.faults import fault_lines
    from internimage.integrations.openmmlab.data.mask_check import (
        WORKERS,
        MaskReport,
        check_masks,
    )

NAME = "check_masks"
FOUND_STOPPING = 1


def describe(report: MaskReport) -> str:
    """Returns the faults and the pixels of each class as two tables, a line a fact: not wrapped."""
    lines = fault_lines(report.faults)
    lines += [""] if lines else []
    lines += [f"{'share':>9}  {'masks':>9}  class"]
    shares = report.shares
    for name, share in shares.items():
        lines.append(f"{share:>9.2%}  {report.masks_with[name]:>9,}  {name}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog=NAME, description="Checks images and semantic masks.")
    parser.add_argument("images", type=Path, metavar="IMAGES", help="their folder")
    parser.add_argument("masks", type=Path, metavar="MASKS", help="the folder of their masks")
    parser.add_argument(
        "--classes", nargs="+", required=True, metavar="NAME", help="or a file of names; 0 is first"
    )
    parser.add_argument(
        "--img-suffix", default=".jpg", metavar="TEXT", help="how the images' names end"
    )
    parser.add_argument(
        "--seg-map-suffix", default=".png", metavar="TEXT", help="what the masks' have in its place"
    )
    parser.add_argument(
        "--reduce-zero-label", action="store_true", help="0 is no class, and 1 is the first one"
    )
    parser.add_argument(
        "--ignore-index", type=int, default=255, metavar="N", help="the label that is not learned"
    )
    parser.add_argument(
        "--split", type=Path, metavar="FILE", help="names without suffix, one a line; without, all"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="look into the first N pairs alone")
    parser.add_argument(
        "--no-decode", action="store_true", help="read the images' headers alone: faster"
    )
    parser.add_argument("--workers", type=int, default=WORKERS, metavar="N", help="threads")
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
    classes = read_class_names(args.classes, tool=NAME)
    names = None
    if args.split is not None:
        lines = args.split.read_text(encoding="utf-8").splitlines()
        names = [line.strip() for line in lines if line.strip()]
    with progress("masks") as advance:
        report = check_masks(
            args.images,
            args.masks,
            classes=classes,
            img_suffix=args.img_suffix,
            seg_map_suffix=args.seg_map_suffix,
            reduce_zero_label=args.reduce_zero_label,
            ignore_index=args.ignore_index,
            names=names,
            limit=args.limit,
            decode=not args.no_decode,
            workers=args.workers,
            advance=advance,
        )
    print(describe(report))
    total = report.ignored + sum(report.pixels.values())
    ignored = f"{report.ignored / total:.1%}" if total else "none"
    print(
        f"\n{args.images}: {report.num_images:,} images, {report.num_read:,} masks read, "
        f"{len(classes)} classes, {ignored} of all pixels ignored; {len(report.stopping)} kinds of "
        "fault would stop or spoil a training"
    )
    return bool(report.stopping)


if __name__ == "__main__":
    sys.exit(main())
