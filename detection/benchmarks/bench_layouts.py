r"""Where a detector's pass changes the layout of a map, and what other layouts would save.

    .venv/bin/python detection/benchmarks/bench_layouts.py

The backbone computes channels last and hands contiguous channels-first maps to the pyramid: one
copy a map. The alternative is to hand out the maps as they are, as views, whose strides the pyramid
and the heads of proposals pass on. mmcv's RoIAlign reads its input as if it were contiguous, and
gives **wrong numbers without an error** for any other layout; so the pyramid's maps are copied
before it. Both ways take turns; times are CPU time, medians.
"""

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from mmcv.ops import RoIAlign
from mmdet.structures.bbox import bbox2roi
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from detection.benchmarks.contenders import CONTENDERS, build, make_input
from tools.benchmarks.turns import MIB, OWN_PAGES, print_machine

COPIES = (
    torch.ops.aten.clone.default,
    torch.ops.aten.copy_.default,
    torch.ops.aten._to_copy.default,
)
WAYS = ("contiguous", "views")
PARTS = ("copy the maps", "pyramid", "proposals", "copy the pyramid", "heads of regions")


@dataclasses.dataclass(frozen=True)
class LayoutCopy:
    """A copy into other strides.

    Args:
        part: the part of the model that makes it.
        shape: of the map.
        mib: its size.
    """

    part: str
    shape: tuple[int, ...]
    mib: float


class LayoutCopies(TorchDispatchMode):
    """Collects, while it is on, the copies that change the order of a map's axes in memory."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.found: list[LayoutCopy] = []
        self._part = ""
        for name, part in model.named_children():
            part.register_forward_pre_hook(lambda *_, name=name: self._enter(name))

    def _enter(self, name: str) -> None:
        self._part = name

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: D105
        out = func(*args, **(kwargs or {}))
        if func in COPIES:
            source = args[1] if func is COPIES[1] else args[0]
            if out.ndim == 4 and _order(source) != _order(out):
                size = out.numel() * out.element_size() / MIB
                self.found.append(LayoutCopy(self._part, tuple(out.shape), size))
        return out


def _order(x: Tensor) -> list[int]:
    """Returns the axes of a map by stride, those of one element left out."""
    axes = [axis for axis in range(x.ndim) if x.shape[axis] > 1]
    return sorted(axes, key=lambda axis: -x.stride()[axis])


def count_copies(model: nn.Module, height: int, width: int) -> list[LayoutCopy]:
    """Returns the layout copies of one pass of the whole detector."""
    image, samples = make_input(height, width)
    copies = LayoutCopies(model)
    # Not inference_mode, in which contiguous() is one operation that hides its copy.
    with torch.no_grad(), copies:
        model(image, samples, mode="tensor")
    return copies.found


def passes(
    model: Any, height: int, width: int
) -> Callable[[str], tuple[list[float], list[Tensor]]]:
    """Returns a function that runs all behind the backbone one way or the other.

    Its answer: CPU seconds of each of :data:`PARTS`, and the results. The maps are noise, and the
    regions are the same for both ways: proposals of untrained weights hang on the last bit.
    """
    _, samples = make_input(height, width)
    generator = torch.Generator().manual_seed(0)
    views = [
        torch.randn(
            (1, channels, -(-height // stride), -(-width // stride)), generator=generator
        ).contiguous(memory_format=torch.channels_last)
        for channels, stride in zip(
            CONTENDERS["internimage_t"].in_channels, (4, 8, 16, 32), strict=True
        )
    ]
    with torch.inference_mode():
        proposals = model.rpn_head.predict(model.neck(views), samples, rescale=False)
    rois = bbox2roi([found.bboxes for found in proposals])

    @torch.inference_mode()
    def run(way: str) -> tuple[list[float], list[Tensor]]:
        moments = [time.process_time()]

        def done(value: Any) -> Any:
            moments.append(time.process_time())
            return value

        inputs = done([y.contiguous() for y in views] if way == "contiguous" else views)
        pyramid = done(model.neck(inputs))
        done(model.rpn_head.predict(pyramid, samples, rescale=False))
        pyramid = done([y.contiguous() for y in pyramid])  # nothing to do for the first way
        boxes = model.roi_head._bbox_forward(pyramid, rois)
        masks = model.roi_head._mask_forward(pyramid, rois[:100])
        done(None)
        seconds = [b - a for a, b in zip(moments, moments[1:], strict=False)]
        return seconds, [*pyramid, boxes["cls_score"], masks["mask_preds"]]

    return run


def roi_align_error() -> float:
    """Returns the largest difference of mmcv's RoIAlign between two layouts of the same map."""
    x = torch.randn(1, 16, 50, 80, generator=torch.Generator().manual_seed(0))
    rois = torch.tensor([[0.0, 8.0, 16.0, 200.0, 150.0]])
    layer = RoIAlign(7, 0.25, 0)
    other = layer(x.contiguous(memory_format=torch.channels_last), rois)
    return float((layer(x, rois) - other).abs().max())


def peak_mib(*, reset: bool = False) -> float:
    """Returns the most memory that this process has held so far; on Linux."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    (line,) = (line for line in lines if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def peak(way: str, args: argparse.Namespace) -> float:
    """Returns the MiB that a process of its own holds at most for a pass, above the maps."""
    command = [sys.executable, __file__, "--peak", way]
    command += [
        f"--{key}={getattr(args, key)}" for key in ("height", "width", "threads", "pyramid")
    ]
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | OWN_PAGES
    )
    return json.loads(done.stdout.splitlines()[-1])


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints the tables."""
    parser = argparse.ArgumentParser(description="Layouts of a detector's maps.")
    parser.add_argument("--height", type=int, default=800, help="of the image, pixels")
    parser.add_argument("--width", type=int, default=1280, help="of the image, pixels")
    parser.add_argument("--rounds", type=int, default=7, help="passes each way")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch")
    parser.add_argument("--pyramid", type=int, default=256, help="channels of the pyramid")
    parser.add_argument("--peak", choices=WAYS, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    args.device = "cpu"
    torch.set_num_threads(args.threads)
    model = build(CONTENDERS["internimage_t"], width=args.pyramid)
    run = passes(model, args.height, args.width)
    if args.peak:
        before = peak_mib(reset=True)
        run(args.peak)
        print(peak_mib() - before)
        return
    print_machine(args, "mmcv", "mmdet")
    print("| made in | map | MiB |\n|---|---|---:|")
    for copy in count_copies(model, args.height, args.width):
        print(f"| {copy.part} | {'x'.join(map(str, copy.shape))} | {copy.mib:.1f} |")
    seconds: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    results = {}
    for index in range(args.rounds + 1):
        for way in WAYS:
            taken, results[way] = run(way)
            if index:
                seconds[way].append(taken)
    print(f"\n| CPU ms | {' | '.join(PARTS)} | all | peak MiB |\n|---|{'---:|' * (len(PARTS) + 2)}")
    for way, rows in seconds.items():
        cells = [1e3 * statistics.median(column) for column in zip(*rows, strict=True)]
        cells.append(1e3 * statistics.median(map(sum, rows)))
        print(f"| {way} | {' | '.join(f'{c:.1f}' for c in cells)} | {peak(way, args):.0f} |")
    pairs = zip(*results.values(), strict=True)
    error = max(float((a - b).abs().max()) for a, b in pairs if a.shape == b.shape)
    print(f"\nlargest difference of the results: {error:.2g}")
    print(f"largest difference where RoIAlign reads such views itself: {roi_align_error():.2g}")


if __name__ == "__main__":
    main()
