r"""Mask R-CNN with InternImage-T beside ResNet-50, ConvNeXt-T and Swin-T: time, memory, FLOPs.

    .venv/bin/python detection/benchmarks/bench_detectors.py
    .venv/bin/python detection/benchmarks/bench_detectors.py --device cuda:0 --rounds 20

Each contender lives in a process of its own; they take turns, image by image, as
``tools/benchmarks/turns.py`` says.

ConvNeXt-T comes with mmpretrain, which nothing else here needs; without it its row is left out,
with a note.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tools.benchmarks.turns import Worker, measure, print_machine, print_tables, serve


def start(args: argparse.Namespace, name: str, **environment: str) -> Worker:
    """Starts the process of a contender."""
    command = [__file__, "--worker", name, f"--device={args.device}"]
    keys = ("height", "width", "threads", "pyramid")
    command += [f"--{key}={getattr(args, key)}" for key in keys]
    return Worker(command, args.threads, **environment)


def work(args: argparse.Namespace) -> None:
    """The process of a contender."""
    import torch

    from detection.benchmarks.contenders import CONTENDERS, build, forward_pass

    torch.set_num_threads(args.threads)
    model = build(CONTENDERS[args.worker], width=args.pyramid).to(args.device)
    serve(model, forward_pass(model, args.height, args.width, args.device), args.device)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints the tables."""
    parser = argparse.ArgumentParser(description="Mask R-CNN with four backbones.")
    parser.add_argument("--device", default="cpu", help="cpu or cuda:0")
    parser.add_argument("--height", type=int, default=800, help="of the image, pixels")
    parser.add_argument("--width", type=int, default=1280, help="of the image, pixels")
    parser.add_argument("--rounds", type=int, default=7, help="images of each contender")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="a process")
    parser.add_argument("--pyramid", type=int, default=256, help="channels of the pyramid")
    parser.add_argument("--only", nargs="+", help="these contenders, InternImage-T among them")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.worker:
        work(args)
        return
    from detection.benchmarks.contenders import CONTENDERS
    from tools.benchmarks.backbones import YARDSTICK, available

    print_machine(args, "mmcv", "mmdet")
    names = available(args.only or list(CONTENDERS), CONTENDERS)
    results = measure(names, partial(start, args), rounds=args.rounds, device=args.device)
    titles = {name: CONTENDERS[name].title for name in names}
    print_tables(*results, titles, YARDSTICK)


if __name__ == "__main__":
    main()
