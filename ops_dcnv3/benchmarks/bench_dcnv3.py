"""Speed and memory of the operator on a CPU, on the shapes of InternImage-T.

    python ops_dcnv3/benchmarks/bench_dcnv3.py [--quick] [--only TABLE ...] [--threads N]
                                               [--markdown FILE]

Every ratio compares two medians of one interleaved run, so that it holds on a noisy machine; run
it alone for the milliseconds. Offsets are normal with a standard deviation of one pixel: about what
trained layers show, and never on the lattice, where zero offsets would read one corner of four.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path

import torch
from competitors import original_path, torchvision_arguments, torchvision_path
from measure import FULL, QUICK, Effort, Table, describe_machine, medians, peak_extra_bytes
from torch import Tensor

import ops_dcnv3
from ops_dcnv3 import extension

FLOOR_NS = 10.0  # a (pixel, group) of 16 channels: 36 loads and fused multiply-adds of a vector
AVX2_SHARE = 0.6  # of the goal for AVX-512
STAGES = ((64, 4), (128, 8), (256, 16), (512, 32))  # channels, groups
SIZES = {
    "224 px": ((56, 56), (28, 28), (14, 14), (7, 7)),
    "800x1280": ((200, 320), (100, 160), (50, 80), (25, 40)),
}
SETTINGS = (("224 px", 1), ("224 px", 8), ("800x1280", 1))
# how many times faster than the original's path AVX-512 is to be at least, stages 1-4
GOALS = {
    "forward": ((20, 15, 12, 12), (15, 6, 6, 6), (20, 14, 12, 9)),
    "forward+backward": ((12, 11, 10, 9), (11, 7, 7, 7), None),
}


@dataclass(frozen=True)
class Shape:
    """One stage of InternImage-T at one image size."""

    image_size: str
    batch: int
    stage: int  # 0-3

    def __str__(self) -> str:
        """As a row's name."""
        return f"{self.image_size}, N={self.batch}, stage {self.stage + 1}"

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return SIZES[self.image_size][self.stage]

    @property
    def groups(self) -> int:
        """G."""
        return STAGES[self.stage][1]

    @property
    def cells(self) -> int:
        """(pixel, group) pairs: N * H * W * G."""
        return self.batch * self.size[0] * self.size[1] * self.groups

    def tensors(self, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
        """Input (N, H, W, C), offset (N, H, W, G*9*2), logits (N, H, W, G*9)."""
        generator = torch.Generator().manual_seed(0)
        widths = (STAGES[self.stage][0], self.groups * 18, self.groups * 9)
        return tuple(
            torch.randn((self.batch, *self.size, width), generator=generator).to(dtype)
            for width in widths
        )  # type: ignore[return-value]


def shapes() -> Iterator[tuple[int, Shape]]:
    """Every shape, with the index of its setting."""
    for setting, (image_size, batch) in enumerate(SETTINGS):
        for stage in range(len(STAGES)):
            yield setting, Shape(image_size, batch, stage)


def normalised(logits: Tensor, groups: int) -> Tensor:
    """Softmax over the points of each group, (N, H, W, G*P)."""
    return logits.unflatten(-1, (groups, -1)).softmax(-1).flatten(-2)


Operation = Callable[..., Tensor]


def forward_only(operation: Operation, *tensors: Tensor) -> Callable[[], object]:
    """A call without gradients."""

    @torch.no_grad()
    def run() -> Tensor:
        return operation(*tensors)

    return run


def forward_backward(operation: Operation, *tensors: Tensor) -> Callable[[], object]:
    """A call and the gradients of all its tensors."""
    leaves = [t.detach().requires_grad_() for t in tensors]
    grad_output = torch.randn_like(operation(*leaves))

    def run() -> tuple[Tensor, ...]:
        return torch.autograd.grad(operation(*leaves), leaves, grad_output)

    return run


PASSES = {"forward": forward_only, "forward+backward": forward_backward}


def at_level(level: str, run: Callable[[], object]) -> Callable[[], object]:
    """`run` on the kernels of one instruction-set level."""

    def with_level() -> object:
        extension.set_cpu_level(level)
        return run()

    return with_level


def table_original(effort: Effort, threads: int) -> Iterator[Table]:
    """Times faster than the original's PyTorch path, at each level."""
    torch.set_num_threads(threads)
    levels = extension.cpu_levels()[::-1]
    for direction, wrap in PASSES.items():
        columns = ["shape", "original ms"]
        for level in levels:
            columns += [f"{level} ms", f"{level} times", f"{level} goal"]
        columns += ["ns a (pixel, group)", "times the floor"]
        table = Table(f"{direction}, float32, against the original's PyTorch path", columns)
        table.note = f"The floor is {FLOOR_NS:g} ns a (pixel, group) forward, on one thread."
        for setting, shape in shapes():
            image, offset, logits = shape.tensors()
            mask = normalised(logits, shape.groups)
            ours = wrap(partial(ops_dcnv3.dcnv3, groups=shape.groups), image, offset, mask)
            original = wrap(partial(original_path, groups=shape.groups), image, offset, mask)
            contenders = {"original": original} | {lv: at_level(lv, ours) for lv in levels}
            seconds = medians(contenders, effort)
            goals = GOALS[direction][setting]
            cells: list[object] = [shape, seconds["original"] * 1e3]
            for level in levels:
                share = {"v4": 1.0, "v3": AVX2_SHARE}.get(level)
                goal = goals[shape.stage] * share if goals and share else None
                cells += [seconds[level] * 1e3, seconds["original"] / seconds[level], goal or "-"]
            best = seconds[levels[0]] * 1e9 / shape.cells
            table.add(*cells, best, best / FLOOR_NS if direction == "forward" else "-")
        yield table


def table_softmax(effort: Effort, threads: int) -> Iterator[Table]:
    """Cost of the softmax inside the operator, and of one before it."""
    torch.set_num_threads(threads)
    for direction, wrap in PASSES.items():
        columns = ["shape", "without ms", "fused ms", "fused / without", "goal", "before / without"]
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
            ratios = (seconds["fused"] / base, "<= 1.35", seconds["before"] / base)
            table.add(shape, base * 1e3, seconds["fused"] * 1e3, *ratios)
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
            seconds = medians(contenders, effort)
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
    """Two threads against one."""

    def with_threads(count: int, run: Callable[[], object]) -> Callable[[], object]:
        def run_with_threads() -> object:
            torch.set_num_threads(count)
            return run()

        return run_with_threads

    for direction, wrap in PASSES.items():
        columns = ["shape", "1 thread ms", "2 threads ms", "times", "goal"]
        table = Table(f"threads, {direction}, float32", columns)
        for _, shape in shapes():
            operation = partial(ops_dcnv3.dcnv3, groups=shape.groups, softmax=True)
            run = wrap(operation, *shape.tensors())
            seconds = medians({str(n): with_threads(n, run) for n in (1, 2)}, effort)
            one, two = seconds["1"], seconds["2"]
            table.add(shape, one * 1e3, two * 1e3, one / two, ">= 1.8")
        yield table


def table_memory(effort: Effort, threads: int) -> Iterator[Table]:
    """Peak resident memory beyond the arguments, each figure from a new process."""
    columns = ["shape", "pass", "results MiB", "ours MiB", "original MiB"]
    table = Table("peak extra memory, float32", columns)
    table.note = (
        "The system's high-water mark (VmHWM) over the resident memory before the call. Results: "
        "the output for the forward pass, the three gradients for the backward pass."
    )
    mib = 2**20
    for image_size, batch in SETTINGS[1:]:
        for stage in range(len(STAGES)):
            for direction in ("forward", "backward"):
                found = {}
                for path in ("ours", "original"):
                    command = [
                        sys.executable,
                        __file__,
                        "--threads",
                        str(threads),
                        "--memory-probe",
                    ]
                    command.append(json.dumps([image_size, batch, stage, direction, path]))
                    # with a fixed threshold, freed blocks go back to the system at once
                    env = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
                    printed = subprocess.run(
                        command, env=env, check=True, stdout=subprocess.PIPE, text=True
                    ).stdout
                    found[path] = json.loads(printed.splitlines()[-1])
                shape = Shape(image_size, batch, stage)
                extra = (found[path]["extra"] / mib for path in ("ours", "original"))
                table.add(shape, direction, found["ours"]["results"] / mib, *extra)
    yield table


def memory_probe(image_size: str, batch: int, stage: int, direction: str, path: str) -> None:
    """Print the peak of one call in this process, as JSON: extra and results, in bytes."""
    operation = {"ours": ops_dcnv3.dcnv3, "original": original_path}[path]

    def prepare(shape: Shape) -> tuple[Callable[[], object], int]:
        image, offset, logits = shape.tensors()
        leaves = [image, offset, normalised(logits, shape.groups)]
        run = partial(operation, groups=shape.groups)
        if direction == "forward":
            return forward_only(run, *leaves), image.nbytes
        leaves = [leaf.requires_grad_() for leaf in leaves]
        output = run(*leaves)
        upstream = torch.randn_like(output)
        gradients = partial(torch.autograd.grad, output, leaves, upstream)
        return gradients, sum(leaf.nbytes for leaf in leaves)

    prepare(Shape("224 px", 1, 3))[0]()  # loads libraries and starts threads
    run, results = prepare(Shape(image_size, batch, stage))
    print(json.dumps({"extra": peak_extra_bytes(run), "results": results}))


def table_model(effort: Effort, threads: int) -> Iterator[Table]:
    """The whole InternImage-T, batch 1, on one thread."""
    import internimage

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = internimage.create_model("internimage_t").eval()
    layers = [m for m in model.modules() if isinstance(m, ops_dcnv3.DCNv3)]
    for layer in layers:  # a fresh layer has zero offsets, which no trained one has
        torch.nn.init.normal_(layer.offset.weight, std=layer.channels**-0.5)
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
        ["path", "ms", "times", "goal"],
        "The first ratio is to the original's path, the second to our float32.",
    )
    table.add("original's path, float32", seconds["original"] * 1e3, "-", "-")
    ratio = seconds["original"] / seconds["float32"]
    table.add("ours, float32", seconds["float32"] * 1e3, ratio, ">= 1.9")
    ratio = seconds["float32"] / seconds["bfloat16"]
    table.add("ours, bfloat16 autocast", seconds["bfloat16"] * 1e3, ratio, ">= 1.3")
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
    parser.add_argument("--markdown", type=Path, help="write the record to this file as well")
    parser.add_argument("--memory-probe", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Print the tables asked for."""
    args = parse_arguments()
    if "cpu" not in ops_dcnv3.extension_info()["backends"]:
        missing = ops_dcnv3.extension_info()["missing"]["cpu"]
        raise SystemExit(f"bench_dcnv3: expected the compiled kernels, got none: {missing}")
    if args.memory_probe:
        torch.set_num_threads(args.threads)
        memory_probe(*json.loads(args.memory_probe))
        return
    command = "python " + " ".join([os.path.relpath(sys.argv[0]), *sys.argv[1:]])
    text = f"{date.today()}: `{command}`\n\n{describe_machine(args.threads)}\n"
    print(text)
    for name in args.only:
        for table in TABLES[name](QUICK if args.quick else FULL, args.threads):
            print(table.markdown(), end="\n\n", flush=True)
            text += f"\n{table.markdown()}\n"
    if args.markdown:
        args.markdown.write_text("## The DCNv3 operator on a CPU\n\n" + text)


if __name__ == "__main__":
    main()
