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

import torch

from internimage.cli_arguments import rate
from internimage.cli_detect import PALETTES, detect
from internimage.script import Parser, run_script

NAME = "image_demo.py"


def build_parser() -> Parser:
    """Describes the command line."""
    parser = Parser(NAME, "Finds objects in images, folders or videos and draws them.")
    parser.add_argument("img", help="image, folder of images, or video")
    parser.add_argument("config", type=Path, help="config of the detector")
    parser.add_argument("checkpoint", help="its weights: a file or a released name")
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder (default demo)")
    parser.add_argument("--device", help="default: cuda:0 where PyTorch sees a GPU, else cpu")
    parser.add_argument("--palette", choices=PALETTES, help="colours; default: the model's own")
    parser.add_argument(
        "--score-thr", type=rate, default=0.3, help="least score, 0-1 (default 0.3)"
    )
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="settings that override the config's",
    )
    parser.add_argument("--async-test", action="store_true", help="no effect")
    return parser


def demo(options: argparse.Namespace) -> int:
    """Draws what is found; returns the exit code."""
    if options.async_test:
        warnings.warn("--async-test has no effect: images are taken one by one", stacklevel=1)
    return detect(
        NAME,
        [options.img],
        options.out,
        checkpoint=options.checkpoint,
        config=options.config,
        cfg_options=options.cfg_options,
        device=options.device or ("cuda:0" if torch.cuda.is_available() else "cpu"),
        palette=options.palette,
        tta=False,
        score_threshold=options.score_thr,
        topk=None,
        as_json=False,
        configs=Path(__file__).parent / "configs",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    exit_code = 0

    def script() -> None:
        nonlocal exit_code
        exit_code = demo(build_parser().parse_known(arguments))

    advice = "a smaller scale in the config's test pipeline needs less"
    return run_script(NAME, script, memory_advice=advice) or exit_code


if __name__ == "__main__":
    sys.exit(main())
