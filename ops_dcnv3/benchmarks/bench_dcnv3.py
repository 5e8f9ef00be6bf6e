"""Speed and memory of the operator on a CPU, on the shapes of InternImage-T.

    python ops_dcnv3/benchmarks/bench_dcnv3.py [--quick] [--only TABLE ...] [--threads N]
                                               [--markdown FILE]

Every ratio compares two medians of one interleaved run, so that it holds on a noisy machine; run
it alone for the milliseconds. Offsets are normal with a standard deviation of one pixel: about what
trained layers show, and never on the lattice, where zero offsets would read one corner of four.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path

import torch
from competitors import original_path, torchvision_arguments, torchvision_path
from measure import FULL, QUICK, Effort, Table, describe_machine, judge, medians, print_tables
from memory import table_memory
from torch import Tensor
from workloads import PASSES, internimage_t, normalised, shapes

import ops_dcnv3
from ops_dcnv3 import extension

# 16 channels of a (pixel, group) take 36 loads and multiply-adds of one vector of AVX-512, of two
# of AVX2, of four of the baseline
FLOOR_NS = {"v4": 10.0, "v3": 20.0, "v2": 40.0}
AVX2_SHARE = 0.6  # of the goal for AVX-512
# how many times faster than the original's path AVX-512 is to be at least, stages 1-4
GOALS = {
    "forward": ((20, 15, 12, 12), (15, 6, 6, 6), (20, 14, 12, 9)),
    "forward+backward": ((12, 11, 10, 9), (11, 7, 7, 7), None),
}


def table_original(effort: Effort, threads: int) -> Iterator[Table]:
    """Times faster than the original's PyTorch path, at each level."""
    torch.set_num_threads(threads)
    levels = extension.cpu_levels()[::-1]
    shares = {"v4": 1.0, "v3": AVX2_SHARE}

    def prepare(name: str) -> None:
        if name in levels:
            extension.set_cpu_level(name)

    for direction, wrap in PASSES.items():
        columns = ["shape", "level", "original ms", "ms", "times", "goal", "verdict"]
        columns += ["ns a (pixel, group)", *(["times the floor"] if direction == "forward" else [])]
        table = Table(f"{direction}, float32, against the original's PyTorch path", columns)
        if direction == "forward":
            table.note = (
                f"The floor, for one thread: {FLOOR_NS['v4']:g} ns a (pixel, group) of 16 channels "
                "with AVX-512 (v4), twice that with AVX2 (v3), four times with the baseline (v2)."
            )
        for setting, shape in shapes():
            image, offset, logits = shape.tensors()
            mask = normalised(logits, shape.groups)
            ours = wrap(partial(ops_dcnv3.dcnv3, groups=shape.groups), image, offset, mask)
            original = wrap(partial(original_path, groups=shape.groups), image, offset, mask)
            contenders = {"original": original} | dict.fromkeys(levels, ours)
            seconds = medians(contenders, effort, prepare)
            goals = GOALS[direction][setting]
            for level in levels:
                times = seconds["original"] / seconds[level]
                verdict = ("-", "-")
                if goals and level in shares:
                    verdict = judge(times, goals[shape.stage] * shares[level])
                nanoseconds = seconds[level] * 1e9 / shape.cells
                cells = [seconds["original"] * 1e3, seconds[level] * 1e3, times, *verdict]
                floor = FLOOR_NS.get(level)
                distance = [nanoseconds / floor if floor else "-"] if direction == "forward" else []
                table.add(shape, level, *cells, nanoseconds, *distance)
        extension.set_cpu_level(levels[0])
        yield table


def table_softmax(effort: Effort, threads: int) -> Iterator[Table]:
    """Cost of the softmax inside the operator, and of one before it."""
    torch.set_num_threads(threads)
    for direction, wrap in PASSES.items():
        columns = ["shape", "without ms", "fused ms", "fused / without", "goal", "verdict"]
        columns += ["before / without"]
        table = Table(f"softmax, {direction}, float32", columns)
        for _, shape in shapes():
            image, offset, logits = shape.tensors()
            groups = shape.groups
            mask = normalised(logits, groups)
            plain = partial(ops_dcnv3.dcnv3, groups=groups)
            fused = partial(ops_dcnv3.dcnv3, groups=groups, softmax=True)

            def before(image, offset, logits, plain=plain, groups=groups):
                return plain(image, offset, normalised(logits, groups))

            contenders = {
                "without": wrap(plain, image, offset, mask),
                "fused": wrap(fused, image, offset, logits),
                "before": wrap(before, image, offset, logits),
            }
            seconds = medians(contenders, effort)
            base = seconds["without"]
            ratio = seconds["fused"] / base
            verdict = judge(ratio, 1.35, at_most=True)
            cells = (base * 1e3, seconds["fused"] * 1e3, ratio, *verdict)
            table.add(shape, *cells, seconds["before"] / base)
        yield table


def table_torchvision(effort: Effort, threads: int) -> Iterator[Table]:
    """Torchvision's deform_conv2d as a depth-wise sum of the same points."""
    torch.set_num_threads(threads)
    for direction, wrap in PASSES.items():
        columns = ["shape", "torchvision ms", "ours ms", "times"]
        table = Table(f"torchvision deform_conv2d, {direction}, float32", columns)
        table.note = (
            "Depth-wise with weights of one: the same numbers. Its channels-first layout and order "
            "of points are prepared outside the timing; backward includes its weight's gradient."
        )
        for _, shape in shapes():
            image, offset, logits = shape.tensors()
            mask = normalised(logits, shape.groups)
            theirs = torchvision_arguments(image, offset, mask, groups=shape.groups)
            ours = partial(ops_dcnv3.dcnv3, groups=shape.groups)
            difference = torchvision_path(*theirs).permute(0, 2, 3, 1) - ours(image, offset, mask)
            if difference.abs().max() > 1e-3:
                raise RuntimeError(f"torchvision computes something else at {shape}")
            contenders = {
                "theirs": wrap(torchvision_path, *theirs),
                "ours": wrap(ours, image, offset, mask),
            }
            seconds = medians(contenders, replace(effort, least_rounds=3))  # seconds a call
            times = seconds["theirs"] / seconds["ours"]
            table.add(shape, seconds["theirs"] * 1e3, seconds["ours"] * 1e3, times)
        yield table


def table_dtypes(effort: Effort, threads: int) -> Iterator[Table]:
    """The 16-bit and 64-bit kernels beside float32."""
    torch.set_num_threads(threads)
    dtypes = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
    for direction, wrap in PASSES.items():
        names = [str(d).removeprefix("torch.") for d in dtypes]
        table = Table(f"dtypes, {direction}", ["shape", *(f"{n} ms" for n in names)])
        for _, shape in shapes():
            operation = partial(ops_dcnv3.dcnv3, groups=shape.groups, softmax=True)
            contenders = {
                name: wrap(operation, *shape.tensors(dtype))
                for name, dtype in zip(names, dtypes, strict=True)
            }
            seconds = medians(contenders, effort)
            table.add(shape, *(seconds[name] * 1e3 for name in names))
        yield table


def table_scaling(effort: Effort, threads: int) -> Iterator[Table]:
    """The fixed cost of a call, then two threads against one."""
    torch.set_num_threads(1)
    smallest = (torch.randn(1, 2, 2, 16), torch.randn(1, 2, 2, 18), torch.randn(1, 2, 2, 9))
    operation = partial(ops_dcnv3.dcnv3, groups=1, softmax=True)
    contenders = {name: wrap(operation, *smallest) for name, wrap in PASSES.items()}
    fixed = {name: s * 1e6 for name, s in medians(contenders, effort).items()}  # microseconds
    table = Table("fixed cost of a call: N=1, 2 x 2 pixels, 16 channels", ["pass", "microseconds"])
    for name, microseconds in fixed.items():
        table.add(name, microseconds)
    yield table
    for direction, wrap in PASSES.items():
        columns = ["shape", "1 thread ms", "2 threads ms", "times", "goal", "verdict"]
        table = Table(f"threads, {direction}, float32", columns)
        table.note = (
            f"Of each call {fixed[direction]:.0f} microseconds are the fixed cost, which threads "
            "do not share: it bounds what small calls of tens of microseconds can gain."
        )
        for _, shape in shapes():
            operation = partial(ops_dcnv3.dcnv3, groups=shape.groups, softmax=True)
            run = wrap(operation, *shape.tensors())
            contenders = {"1": run, "2": run}
            seconds = medians(contenders, effort, lambda name: torch.set_num_threads(int(name)))
            one, two = seconds["1"], seconds["2"]
            table.add(shape, one * 1e3, two * 1e3, one / two, *judge(one / two, 1.8))
        yield table


def table_model(effort: Effort, threads: int) -> Iterator[Table]:
    """The whole InternImage-T, batch 1, on one thread."""
    torch.set_num_threads(1)
    model = internimage_t().eval()
    layers = [m for m in model.modules() if isinstance(m, ops_dcnv3.DCNv3)]
    image = torch.randn(1, 3, 224, 224)

    def original_sample(self: ops_dcnv3.DCNv3, value: Tensor, control: Tensor) -> Tensor:
        offset, logits = self.offsets_and_logits(control)
        groups = self.geometry.groups
        return original_path(value, offset, normalised(logits, groups), groups=groups)

    @torch.no_grad()
    def ours() -> Tensor:
        return model(image)

    @torch.no_grad()
    def original() -> Tensor:
        for layer in layers:
            layer._sample = partial(original_sample, layer)
        try:
            return model(image)
        finally:
            for layer in layers:
                del layer._sample

    @torch.no_grad()
    def autocast() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return model(image)

    torch.testing.assert_close(ours(), original(), rtol=1e-3, atol=1e-3)
    runs = {"original": original, "float32": ours, "bfloat16": autocast}
    seconds = medians(runs, effort)
    table = Table(
        "InternImage-T, 224 px, batch 1, one thread",
        ["path", "ms", "times", "goal", "verdict"],
        "The first ratio is to the original's path, the second to our float32.",
    )
    table.add("original's path, float32", seconds["original"] * 1e3, "-", "-", "-")
    ratio = seconds["original"] / seconds["float32"]
    table.add("ours, float32", seconds["float32"] * 1e3, ratio, *judge(ratio, 1.9))
    ratio = seconds["float32"] / seconds["bfloat16"]
    table.add("ours, bfloat16 autocast", seconds["bfloat16"] * 1e3, ratio, *judge(ratio, 1.3))
    yield table


TABLES = {
    "original": table_original,
    "softmax": table_softmax,
    "dtypes": table_dtypes,
    "torchvision": table_torchvision,
    "scaling": table_scaling,
    "memory": table_memory,
    "model": table_model,
}


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few rounds only: to see it work")
    parser.add_argument("--only", nargs="+", choices=TABLES, default=list(TABLES), metavar="TABLE")
    parser.add_argument("--threads", type=int, default=1, help="for all but scaling and model")
    parser.add_argument(
        "--markdown", type=Path, help="also write a record, docs/benchmarks/NAME.md"
    )
    return parser.parse_args()


def main() -> None:
    """Print the tables asked for."""
    args = parse_arguments()
    if "cpu" not in ops_dcnv3.extension_info()["backends"]:
        missing = ops_dcnv3.extension_info()["missing"]["cpu"]
        raise SystemExit(f"bench_dcnv3: expected the compiled kernels, got none: {missing}")
    command = "python " + " ".join([os.path.relpath(sys.argv[0]), *sys.argv[1:]])
    text = f"{date.today()}: `{command}`\n\n{describe_machine(args.threads)}\n"
    effort = QUICK if args.quick else FULL
    tables = (table for name in args.only for table in TABLES[name](effort, args.threads))
    print_tables(tables, text, args.markdown, "# The DCNv3 operator on a CPU\n")


if __name__ == "__main__":
    main()
