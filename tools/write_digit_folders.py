"""Writes scikit-learn's handwritten digits as PNG files in class folders: a data set of one's own.

python tools/write_digit_folders.py --out digits

DIR/train/0 ... train/9 hold 1,437 images, DIR/val/0 ... val/9 the 360 others: the same split as
``--dataset digits``. docs/custom_data.md trains on them.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from classification.data.digits import Digits
from tools.command_line import run_tool


def write_digit_folders(out: Path) -> int:
    """Writes both halves; returns the number of files.

    Args:
        out: The folder to fill; it may exist and must be empty.

    Raises:
        ValueError: The folder holds something.
        OSError: It cannot be written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"write_digit_folders: expected --out a new or empty folder, got {out}")
    count = 0
    for half, train in (("train", True), ("val", False)):
        digits = Digits(train=train)
        for index, image, label in zip(digits.indices, digits.images, digits.labels, strict=True):
            path = out / half / digits.class_names[label] / f"{index:04}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path)
            count += 1
    return count


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="write_digit_folders", description="Writes the digits as PNG files in class folders."
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to fill")
    args = parser.parse_args(arguments)

    def tool() -> None:
        print(f"{args.out}: {write_digit_folders(args.out)} images in 10 classes")

    return run_tool(parser.prog, tool)


if __name__ == "__main__":
    sys.exit(main())
