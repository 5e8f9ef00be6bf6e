r"""Mask R-CNN with InternImage-T beside ResNet-50, ConvNeXt-T and Swin-T: time, memory, FLOPs.

    .venv/bin/python detection/benchmarks/bench_detectors.py
    .venv/bin/python detection/benchmarks/bench_detectors.py --device cuda:0 --rounds 20

Each contender lives in a process of its own; they take turns, image by image, as
``tools/benchmarks/turns.py`` says.

ConvNeXt-T comes with mmpretrain, which nothing else here needs; without it its row is left out,
with a note.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tools.benchmarks.comparison import add_flags, compare


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints the tables."""
    parser = argparse.ArgumentParser(description="Mask R-CNN with four backbones.")
    add_flags(parser, height=800, width=1280)
    parser.add_argument("--pyramid", type=int, default=256, help="channels of the pyramid")
    compare(
        __file__,
        parser,
        arguments,
        contenders="detection.benchmarks.contenders",
        options={"pyramid": "width"},
        packages=("mmcv", "mmdet"),
    )


if __name__ == "__main__":
    main()
