"""Finds objects in images, folders or videos and draws them, with the original's flags.

    python detection/image_demo.py photo.jpg CONFIG CHECKPOINT
    python detection/image_demo.py photos/ CONFIG CHECKPOINT --out runs/photos --score-thr 0.5

Pictures and JSON go to ``--out``. The same as ``internimage detect``, which takes more images at
once and needs no config where the checkpoint holds it.
"""

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from internimage.cli_arguments import rate
from internimage.cli_detect import PALETTES, detect
from internimage.cli_files import add_demo_arguments, read_demo_request, run_demo
from internimage.script import Parser

NAME = "image_demo.py"


def build_parser() -> Parser:
    """Describes the command line."""
    parser = Parser(NAME, "Finds objects in images, folders or videos and draws them.")
    add_demo_arguments(parser, "detector", PALETTES)
    parser.add_argument(
        "--score-thr", type=rate, default=0.3, help="least score, 0-1 (default 0.3)"
    )
    parser.add_argument("--async-test", action="store_true", help="no effect")
    return parser


def demo(options: argparse.Namespace) -> int:
    """Draws what is found; returns the exit code."""
    if options.async_test:
        warnings.warn("--async-test has no effect: images are taken one by one", stacklevel=1)
    request = read_demo_request(NAME, options, Path(__file__).parent / "configs")
    return detect(request, score_threshold=options.score_thr, topk=None)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    return run_demo(NAME, lambda: demo(build_parser().parse_known(arguments)))


if __name__ == "__main__":
    sys.exit(main())
