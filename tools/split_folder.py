"""Divides one's own images, a folder a class, into a training and a test half.

python tools/split_folder.py photos --out data --val-share 0.2

DIR/train/CLASS/ and DIR/val/CLASS/ then hold links to the images, or copies with --copy. Each
class has its share in both; which images go where depends on their names and --seed alone. Both
appear when they are whole: after an interruption the same command begins anew.
"""

import argparse
import hashlib
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from classification.data.class_folders import open_class_folders
from tools.command_line import run_tool

NAME = "split_folder"
UNFINISHED = ".unfinished"
"""What lies in it was left by an interrupted run."""


def split(names: Sequence[str], *, val_share: float, seed: int) -> tuple[list[str], list[str]]:
    """Divides the images of one class.

    Args:
        names: What they are called.
        val_share: The share of the test half, 0-1; at least one image goes to each half.
        seed: Another seed is another choice.

    Returns:
        The names for training and for testing. An image that is added later moves few others.

    Raises:
        ValueError: There are less than two images.
    """
    if len(names) < 2:
        raise ValueError(f"{NAME}: expected 2 or more images a class, got {names[0]} alone")
    order = sorted(names, key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).digest())
    num_val = min(max(round(val_share * len(order)), 1), len(order) - 1)
    return sorted(order[num_val:]), sorted(order[:num_val])


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog=NAME, description="Divides class folders into a training and a test half."
    )
    parser.add_argument("images", type=Path, metavar="IMAGES", help="a folder of class folders")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to fill")
    parser.add_argument("--val-share", type=float, default=0.2, metavar="X", help="of the images")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="another is another split")
    parser.add_argument("--copy", action="store_true", help="copy the files instead of linking")
    args = parser.parse_args(arguments)
    return run_tool(NAME, lambda: _split(args))


def _split(args: argparse.Namespace) -> None:
    if not 0 < args.val_share < 1:
        raise ValueError(f"{NAME}: expected 0 < --val-share < 1, got {args.val_share}")
    if not args.images.is_dir():
        raise ValueError(f"{NAME}: expected a folder of class folders, got no folder {args.images}")
    if args.out.exists() and not _is_free(args.out):
        raise ValueError(f"{NAME}: expected --out a new or empty folder, got {args.out}")
    source = open_class_folders(args.images)
    by_class: dict[str, list[str]] = {}
    for path in source.paths:
        by_class.setdefault(path.partition("/")[0], []).append(path)
    halves = [split(paths, val_share=args.val_share, seed=args.seed) for paths in by_class.values()]
    unfinished = args.out / UNFINISHED
    if unfinished.exists():
        shutil.rmtree(unfinished)
    lists_of_half = dict(zip(("train", "val"), zip(*halves, strict=True), strict=True))
    for half, lists in lists_of_half.items():
        for path in (path for paths in lists for path in paths):
            target = unfinished / half / path
            target.parent.mkdir(parents=True, exist_ok=True)
            if args.copy:
                shutil.copyfile(args.images / path, target)
            else:
                target.symlink_to((args.images / path).resolve())
    for half, lists in lists_of_half.items():
        (unfinished / half).rename(args.out / half)
        count = sum(map(len, lists))
        print(f"{args.out / half}: {count:,} images in {len(by_class)} classes")
    unfinished.rmdir()


def _is_free(out: Path) -> bool:
    """Whether a path is a folder that is empty but for what an interrupted run has left."""
    return out.is_dir() and all(path.name == UNFINISHED for path in out.iterdir())


if __name__ == "__main__":
    sys.exit(main())
