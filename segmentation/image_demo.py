"""Colours the classes in images, folders or videos, with the original's flags.

    python segmentation/image_demo.py photo.jpg CONFIG CHECKPOINT --palette ade20k
    python segmentation/image_demo.py photos/ CONFIG CHECKPOINT --out runs/photos --opacity 0.7

Pictures, label maps and JSON go to ``--out``. The same as ``internimage segment``, which takes more
images at once and needs no config where the checkpoint holds it.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from internimage.cli_files import add_demo_arguments, read_demo_request, run_demo
from internimage.cli_segment import PALETTES, add_opacity, segment
from internimage.script import Parser

NAME = "image_demo.py"


def build_parser() -> Parser:
    """Describes the command line."""
    parser = Parser(NAME, "Colours the classes in images, folders or videos.")
    add_demo_arguments(parser, "segmentor", PALETTES)
    add_opacity(parser)
    return parser


def demo(options: argparse.Namespace) -> int:
    """Colours what is found; returns the exit code."""
    request = read_demo_request(NAME, options, Path(__file__).parent / "configs")
    return segment(request, opacity=options.opacity)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    return run_demo(NAME, lambda: demo(build_parser().parse_known(arguments)))


if __name__ == "__main__":
    sys.exit(main())
