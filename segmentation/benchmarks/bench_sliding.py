r"""What one large image needs: sliding windows here, in mmseg, and the whole image at once.

    .venv/bin/python segmentation/benchmarks/bench_sliding.py
    .venv/bin/python segmentation/benchmarks/bench_sliding.py --device cuda:0

UperNet with InternImage-T, from a normalised image to the label of every pixel. Each way runs one
image in a process of its own; the peak is of that process, on a GPU PyTorch's count.

"Labels alone" is ``test_cfg=dict(keep_scores=False)``, as ``internimage segment`` and
``segmentation/test.py`` have it; the other ways return the scores of all classes as well, as mmseg
always does. ``--photo 4`` makes the image one that the pipeline has shrunk from four times its
width and height, so that labels are wanted at that size. How large the scores of all classes are at
the model's size and at the photo's stands above the table.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tools.benchmarks.comparison import add_flags, start
from tools.benchmarks.turns import MIB, OWN_PAGES, print_machine, serve

KEYS = ("channels", "classes", "crop", "stride", "photo")


class Way(NamedTuple):
    """How an image is segmented.

    Args:
        title: in the table.
        mode: windows or the whole image.
        ours: whether the segmentor is ours, or mmseg's.
        keep_scores: whether the scores are returned with the labels.
    """

    title: str
    mode: str
    ours: bool = True
    keep_scores: bool = True


WAYS = {
    "windows": Way("sliding windows", "slide"),
    "windows_labels": Way("sliding windows, labels alone", "slide", keep_scores=False),
    "mmseg_windows": Way("mmseg's sliding windows", "slide", ours=False),
    "whole": Way("the whole image", "whole"),
    "whole_labels": Way("the whole image, labels alone", "whole", keep_scores=False),
    "mmseg_whole": Way("the whole image, mmseg", "whole", ours=False),
}


def serve_way(args: argparse.Namespace) -> None:
    """The process of one way."""
    import torch

    from segmentation.benchmarks.contenders import CONTENDERS, build, forward_pass

    torch.set_num_threads(args.threads)
    way = WAYS[args.worker]
    test_cfg: dict[str, object] = dict(mode=way.mode)
    if way.mode == "slide":
        test_cfg |= dict(crop_size=(args.crop, args.crop), stride=(args.stride, args.stride))
    if way.ours:
        test_cfg["keep_scores"] = way.keep_scores
    model = build(
        CONTENDERS["internimage_t"],
        kind="InternImageSegmentor" if way.ours else "EncoderDecoder",
        num_classes=args.classes,
        width=args.channels,
        test_cfg=test_cfg,
    ).to(args.device)
    run = forward_pass(model, args.height, args.width, args.device, photo=args.photo)
    serve(model, run, args.device)


def measure(args: argparse.Namespace, way: str) -> tuple[dict[str, float], float | None]:
    """Returns the MiB before the image and at the peak, and the seconds of another image."""
    worker = start(__file__, args, KEYS, way, **(OWN_PAGES if args.device == "cpu" else {}))
    memory = worker.ask("memory")
    worker.close()
    if not args.time:
        return memory, None
    worker = start(__file__, args, KEYS, way)
    seconds = worker.ask("pass")["wall"]
    worker.close()
    return memory, seconds


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description="One large image.")
    add_flags(parser, height=2048, width=4096)
    parser.add_argument("--crop", type=int, default=1024, help="side of a window, pixels")
    parser.add_argument("--stride", type=int, default=768, help="between windows, pixels")
    parser.add_argument("--photo", type=int, default=1, help="times the image's sides")
    parser.add_argument("--classes", type=int, default=19, help="of the head")
    parser.add_argument("--channels", type=int, default=512, help="of the head")
    parser.add_argument("--time", action="store_true", help="another image, timed")
    parser.add_argument("--only", nargs="+", choices=WAYS, default=list(WAYS), help="these ways")
    args = parser.parse_args(arguments)
    if args.worker:
        serve_way(args)
        return
    args.rounds = 1
    print_machine(args, "mmcv", "mmseg")
    scores = 4 * args.classes * args.height * args.width / MIB
    print(
        f"windows of {args.crop}x{args.crop}, {args.stride} apart; the scores of {args.classes} "
        f"classes are {scores:.0f} MiB, at the photo's size {args.photo**2 * scores:.0f}\n"
    )
    columns = ("way", "MiB with the model built", "peak MiB", "above it", "seconds")
    print(f"| {' | '.join(columns)} |\n|---|---:|---:|---:|---:|")
    for way in args.only:
        memory, seconds = measure(args, way)
        before, peak = memory["before"], memory["peak"]
        cells = [f"{value:.0f}" for value in (before, peak, peak - before)]
        cells.append("-" if seconds is None else f"{seconds:.1f}")
        print(f"| {WAYS[way].title} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
