"""Speed of the operator on a GPU, on the shapes of InternImage-T, beside its memory floor.

    python ops_dcnv3/benchmarks/bench_cuda.py [--quick] [--only TABLE ...]
                                              [--markdown FILE [--append]]

The floor of a call is the bytes of its arguments and results, each moved once, over the bandwidth
of a large copy measured in the same run. Times are of the device, arguments cold in its caches; how
they are taken is told in cuda_timing.py, and what runs against what in cuda_contenders.py. The
contenders of a row take turns. The goals are those for one H200; elsewhere ratios have no verdict.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from pathlib import Path

import cuda_contenders as contenders
import torch
from cuda_contenders import Arguments, Contender
from cuda_machine import describe_gpu
from cuda_model import table_model
from cuda_timing import CudaTimer, HostTimer, Sampler, Timer
from goals import BACKWARD, FORWARD, TIMES_DCNV4, TIMES_ORIGINAL, goal_of
from measure import Effort, Table, interleave, judge, print_tables
from original_design import OriginalDesign, build
from workloads import WIDE, Layer, stage_layers

FULL = Effort(least_rounds=5, most_rounds=31, seconds=2.0)
QUICK = Effort(least_rounds=3, most_rounds=5, seconds=0.3)
JUDGED_GPU = "H200"
DTYPES = (torch.float16, torch.bfloat16, torch.float32)
NO_GOAL = ("-", "-")


@dataclass
class Bench:
    """What all tables need."""

    device: torch.device
    timer: Timer
    effort: Effort
    quick: bool
    judged: bool  # on the GPU that the goals are for
    bandwidth: float  # bytes a second
    original: OriginalDesign | None = None
    layers: list[Layer] = field(default_factory=lambda: stage_layers(64) + stage_layers(1))
    wide: Layer = WIDE

    def dtypes(self) -> Sequence[torch.dtype]:
        """Those to measure."""
        return DTYPES[:1] if self.quick else DTYPES


@dataclass
class Row:
    """Seconds of each contender of one layer, dtype and direction, or a word why there are none."""

    seconds: dict[str, float]
    words: dict[str, str]

    def microseconds(self, name: str) -> float | str:
        """A cell."""
        return self.seconds[name] * 1e6 if name in self.seconds else self.words.get(name, "-")

    def times(self, name: str) -> float | str:
        """How many times ours is faster, as a cell."""
        return self.seconds[name] / self.seconds["ours"] if name in self.seconds else "-"


def the_contenders(bench: Bench, layer: Layer) -> list[Contender]:
    """Ours always; all others at the batch of the goals."""
    found = [
        Contender("ours", contenders.ours),
        Contender("packed", contenders.packed, partial(contenders.packed_results, layer)),
        Contender("Triton", contenders.triton),
    ]
    if layer.batch == 1:
        return found
    if bench.original is not None:
        found.append(Contender("original", partial(contenders.original, bench.original)))
    slow = {"captured": False}
    return [
        *found,
        Contender("DCNv4", contenders.dcnv4, contenders.first_result),
        Contender("torchvision", contenders.torchvision, contenders.channels_last_results, **slow),
        Contender("reference", contenders.plain_pytorch, **slow),
    ]


def measure(bench: Bench, layer: Layer, dtype: torch.dtype, direction: str) -> Row:
    """Times every contender that can run and computes the right numbers."""
    base = Arguments(*layer.tensors(dtype, bench.device))
    copies = bench.timer.copies(layer.floor_bytes(dtype, direction))
    sets = [base, *(Arguments(*(t.clone() for t in base)) for _ in range(copies - 1))]
    first = contenders.ours(layer, direction, base)()
    expected = first if isinstance(first, tuple) else (first,)
    row, samplers = Row({}, {}), {}
    for contender in the_contenders(bench, layer):
        name, given = contender.name, (contender, layer, dtype, direction, sets, expected)
        try:
            samplers[name] = prepare(bench, *given)
        except Exception as error:  # another's fault leaves a word in its cell; ours ends the run
            if name == "ours":
                raise
            row.words[name] = word_for(error)
            if row.words[name] == "fails":
                print(f"{name}, {layer}, {dtype}, {direction}: {error!r}", file=sys.stderr)
    eager = [contenders.eager_ours(layer, direction, a) for a in sets]
    samplers["eager"] = bench.timer.eager(eager)
    row.seconds.update(interleave(samplers, bench.effort))
    return row


class WrongNumbersError(Exception):
    """A contender computes something else, so that its time means nothing."""


def word_for(error: Exception) -> str:
    """What stands in a cell instead of a time."""
    if isinstance(error, ModuleNotFoundError):
        return "absent"
    if isinstance(error, torch.OutOfMemoryError):
        return "no memory"
    return "wrong" if isinstance(error, WrongNumbersError) else "fails"


def prepare(
    bench: Bench,
    contender: Contender,
    layer: Layer,
    dtype: torch.dtype,
    direction: str,
    sets: list[Arguments],
    expected: tuple[torch.Tensor, ...],
) -> Sampler:
    """The sampler of a contender, once its results have been compared with ours."""
    used = sets if contender.captured else sets[:1]
    calls = [contender.make(layer, direction, a) for a in used]
    if not contenders.same_numbers(contender.results(calls[0]()), expected, dtype):
        raise WrongNumbersError
    if contender.captured:
        try:
            return bench.timer.captured(calls)
        except RuntimeError as error:
            if contender.name == "ours":
                raise
            print(f"{contender.name}: no CUDA graph of it: {error!r}", file=sys.stderr)
    return bench.timer.ahead(calls)


def judge_ours(
    bench: Bench,
    layer: Layer,
    dtype: torch.dtype,
    direction: str,
    microseconds: float,
    floors: float,
) -> tuple[str, str]:
    """Cells of the goal and the verdict of our own time."""
    goal = goal_of(layer, dtype, direction) if bench.judged else None
    return goal.judge(microseconds, floors) if goal else NO_GOAL


def judge_times(bench: Bench, times: float | str, goal: float) -> tuple[str, str]:
    """Cells of a goal for how many times faster we are, and of its verdict."""
    return judge(times, goal) if bench.judged and isinstance(times, float) else NO_GOAL


def operator_tables(bench: Bench, layers: Sequence[Layer], title: str) -> Iterator[Table]:
    """For each direction: our times beside their floors, then the others' beside ours."""
    for direction in (FORWARD, BACKWARD):
        own = Table(
            f"{title}, {direction}",
            ["layer", "dtype", "MB", "floor us", "us", "times the floor", "goal", "verdict"]
            + ["packed us", "eager us"],
            f"Floor: the bytes at {bench.bandwidth / 1e9:.0f} GB/s, the bandwidth of a large copy "
            "in this run. Softmax inside. Packed: the entry that the layer uses, offsets and "
            "logits in one tensor. Eager: called from Python through autograd, launches and all; "
            "small kernels wait for the host there.",
        )
        others = Table(
            f"{title}, {direction}, against others",
            ["layer", "dtype", "ours us", "Triton us", "original us", "times", "goal", "verdict"]
            + ["DCNv4 us", "times", "goal", "verdict", "torchvision us", "reference us"],
            "Original: its kernel design, written anew (original_design.cu), with its softmax and "
            "casts; it has no bfloat16. DCNv4: its package, on normalised weights, without a "
            "softmax; through autograd. absent: not installed. wrong: computes something else. "
            "fails: raised an error, which is on standard error.",
        )
        for layer in layers:
            for dtype in bench.dtypes():
                row = measure(bench, layer, dtype, direction)
                name = dtype_name(dtype)
                nbytes = layer.floor_bytes(dtype, direction)
                floor = nbytes / bench.bandwidth
                floors, us = row.seconds["ours"] / floor, row.seconds["ours"] * 1e6
                verdict = judge_ours(bench, layer, dtype, direction, us, floors)
                cells = (nbytes / 1e6, floor * 1e6, us, floors, *verdict)
                beside = (row.microseconds("packed"), row.microseconds("eager"))
                own.add(layer, name, *cells, *beside)
                original, dcnv4 = row.times("original"), row.times("DCNv4")
                others.add(
                    layer,
                    name,
                    us,
                    row.microseconds("Triton"),
                    row.microseconds("original"),
                    original,
                    *judge_times(bench, original, TIMES_ORIGINAL[direction]),
                    row.microseconds("DCNv4"),
                    dcnv4,
                    *judge_times(bench, dcnv4, TIMES_DCNV4),
                    row.microseconds("torchvision"),
                    row.microseconds("reference"),
                )
        yield own
        yield others


def dtype_name(dtype: torch.dtype) -> str:
    """`float16` for `torch.float16`."""
    return str(dtype).removeprefix("torch.")


def table_stages(bench: Bench) -> Iterator[Table]:
    """The four stages, batch 64 and 1."""
    layers = [layer for layer in bench.layers if layer.batch > 1 or not bench.quick]
    return operator_tables(bench, layers, "InternImage-T, 224 px")


def table_wide(bench: Bench) -> Iterator[Table]:
    """The shape of the published figures; half the channels a group beside it."""
    narrow = Layer("wide, D = 16", bench.wide.batch, bench.wide.side, bench.wide.channels, 8)
    return operator_tables(bench, [bench.wide, narrow], "56x56x128")


def table_of_models(direction: str, bench: Bench) -> Iterator[Table]:
    """The whole InternImage-T beside ConvNeXt-T."""
    return table_model(direction, bench.device, bench.timer, bench.effort, quick=bench.quick)


TABLES: dict[str, Callable[[Bench], Iterator[Table]]] = {
    "stages": table_stages,
    "wide": table_wide,
    "inference": partial(table_of_models, "inference"),
    "training": partial(table_of_models, "training step"),
}


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few rounds only: to see it work")
    parser.add_argument("--only", nargs="+", choices=TABLES, default=list(TABLES), metavar="TABLE")
    parser.add_argument("--device", default="cuda:0", help="cpu tries the code, no more")
    parser.add_argument("--build", type=Path, default=Path("build/gpu-check"), metavar="FOLDER")
    parser.add_argument("--markdown", type=Path, help="also write a record")
    parser.add_argument("--append", action="store_true", help="to the record, behind what it holds")
    return parser.parse_args()


def set_up(args: argparse.Namespace) -> Bench:
    """The device, its timer and bandwidth, and the original's design compiled for it."""
    effort = QUICK if args.quick else FULL
    device = torch.device(args.device)
    if device.type == "cpu":
        timer = HostTimer()
        return Bench(device, timer, effort, args.quick, False, timer.copy_bandwidth())
    if not torch.cuda.is_available():
        raise SystemExit("bench_cuda: expected a CUDA device, found none")
    torch.cuda.set_device(device)
    original = None
    try:
        library = build(args.build, torch.cuda.get_device_capability(device))
        original = OriginalDesign(library)
    except (RuntimeError, OSError) as error:
        print(f"bench_cuda: without the original's design: {error}", file=sys.stderr)
    cuda = CudaTimer(device)
    with torch.cuda.stream(cuda.stream):
        bandwidth = cuda.copy_bandwidth()
    judged = JUDGED_GPU in torch.cuda.get_device_name(device)
    return Bench(device, cuda, effort, args.quick, judged, bandwidth, original)


def main() -> None:
    """Print the tables asked for."""
    args = parse_arguments()
    bench = set_up(args)
    command = "python " + " ".join([os.path.relpath(sys.argv[0]), *sys.argv[1:]])
    machine = describe_gpu(bench.device)
    text = f"{date.today()}: `{command}`\n\n{machine}\n"
    text += f"- copy: {bench.bandwidth / 1e9:.0f} GB/s, read and written together\n"
    before = "# The DCNv3 operator on a GPU\n"
    if args.markdown and args.append and args.markdown.exists():
        before = args.markdown.read_text()
    on_the_stream = nullcontext()
    if isinstance(bench.timer, CudaTimer):
        on_the_stream = torch.cuda.stream(bench.timer.stream)
    with on_the_stream:
        tables = (table for name in args.only for table in TABLES[name](bench))
        print_tables(tables, text, args.markdown, before)


if __name__ == "__main__":
    main()
