r"""What one large image needs: sliding windows here, in mmseg, and the whole image at once.

    .venv/bin/python segmentation/benchmarks/bench_sliding.py
    .venv/bin/python segmentation/benchmarks/bench_sliding.py --device cuda:0

UperNet with InternImage-T, from a normalised image to the label of every pixel. Each way runs one
image in a process of its own; the peak is of that process, on a GPU PyTorch's count. How large the
scores of all classes are at the image's size is printed above.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tools.benchmarks.turns import MIB, OWN_PAGES, Worker, print_machine, serve

# Title, segmentor, mode.
WAYS = {
    "windows": ("sliding windows", "InternImageSegmentor", "slide"),
    "mmseg_windows": ("mmseg's sliding windows", "EncoderDecoder", "slide"),
    "whole": ("the whole image", "InternImageSegmentor", "whole"),
    "mmseg_whole": ("the whole image, mmseg", "EncoderDecoder", "whole"),
}


def work(args: argparse.Namespace) -> None:
    """The process of one way."""
    import torch

    from segmentation.benchmarks.contenders import CONTENDERS, build, forward_pass

    torch.set_num_threads(args.threads)
    _, kind, mode = WAYS[args.worker]
    windows = dict(crop_size=(args.crop, args.crop), stride=(args.stride, args.stride))
    model = build(
        CONTENDERS["internimage_t"],
        kind=kind,
        num_classes=args.classes,
        width=args.channels,
        test_cfg=dict(mode=mode, **(windows if mode == "slide" else {})),
    ).to(args.device)
    serve(model, forward_pass(model, args.height, args.width, args.device), args.device)


def start(args: argparse.Namespace, way: str, **environment: str) -> Worker:
    """Starts the process of one way."""
    keys = ("height", "width", "threads", "channels", "classes", "crop", "stride")
    command = [__file__, "--worker", way, f"--device={args.device}"]
    command += [f"--{key}={getattr(args, key)}" for key in keys]
    return Worker(command, args.threads, **environment)


def measure(args: argparse.Namespace, way: str) -> tuple[dict[str, float], float | None]:
    """Returns the MiB before the image and at the peak, and the seconds of another image."""
    worker = start(args, way, **(OWN_PAGES if args.device == "cpu" else {}))
    memory = worker.ask("memory")
    worker.close()
    if not args.time:
        return memory, None
    worker = start(args, way)
    seconds = worker.ask("pass")["wall"]
    worker.close()
    return memory, seconds


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description="One large image.")
    parser.add_argument("--device", default="cpu", help="cpu or cuda:0")
    parser.add_argument("--height", type=int, default=2048, help="of the image, pixels")
    parser.add_argument("--width", type=int, default=4096, help="of the image, pixels")
    parser.add_argument("--crop", type=int, default=1024, help="side of a window, pixels")
    parser.add_argument("--stride", type=int, default=768, help="between windows, pixels")
    parser.add_argument("--classes", type=int, default=19, help="of the head")
    parser.add_argument("--channels", type=int, default=512, help="of the head")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="a process")
    parser.add_argument("--time", action="store_true", help="another image, timed")
    parser.add_argument("--only", nargs="+", choices=WAYS, default=list(WAYS), help="these ways")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.worker:
        work(args)
        return
    args.rounds = 1
    print_machine(args, "mmcv", "mmseg")
    scores = 4 * args.classes * args.height * args.width / MIB
    print(
        f"windows of {args.crop}x{args.crop}, {args.stride} apart; the scores of {args.classes} "
        f"classes are {scores:.0f} MiB\n"
    )
    columns = ("way", "MiB with the model built", "peak MiB", "above it", "seconds")
    print(f"| {' | '.join(columns)} |\n|---|---:|---:|---:|---:|")
    for way in args.only:
        memory, seconds = measure(args, way)
        before, peak = memory["before"], memory["peak"]
        cells = [f"{value:.0f}" for value in (before, peak, peak - before)]
        cells.append("-" if seconds is None else f"{seconds:.1f}")
        print(f"| {WAYS[way][0]} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
