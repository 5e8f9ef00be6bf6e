r"""UperNet with InternImage-T beside ResNet-50, ConvNeXt-T and Swin-T: time, memory, FLOPs.

    .venv/bin/python segmentation/benchmarks/bench_segmentors.py
    .venv/bin/python segmentation/benchmarks/bench_segmentors.py --device cuda:0 --rounds 20

Each contender lives in a process of its own; they take turns, image by image, as
``tools/benchmarks/turns.py`` says. A pass goes from a normalised image to the label of every pixel:
backbone, head, scores at the image's size, the largest of them.

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
    parser = argparse.ArgumentParser(description="UperNet with four backbones.")
    add_flags(parser, height=512, width=512)
    parser.add_argument("--channels", type=int, default=512, help="of the head")
    parser.add_argument("--classes", type=int, default=150, help="of the head")
    compare(
        __file__,
        parser,
        arguments,
        contenders="segmentation.benchmarks.contenders",
        options={"channels": "width", "classes": "num_classes"},
        packages=("mmcv", "mmseg"),
    )


if __name__ == "__main__":
    main()
