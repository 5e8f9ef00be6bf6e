"""The times that the compiled kernels allow at best on a GPU that is not there."""

from __future__ import annotations

import math
import os
import shlex
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import torch
from goals import BACKWARD, FORWARD, goal_of
from measure import Table
from sass import Instruction
from sass_flow import Code, FastCase
from sass_tools import demangled, run
from workloads import WIDE, Layer, stage_layers

DTYPES = {torch.bfloat16: 2, torch.float16: 3}  # as in csrc/dcnv3_params.h
BATCH = 64


@dataclass(frozen=True)
class Gpu:
    """The device of the prediction."""

    name: str
    arch: str
    multiprocessors: int
    hertz: float
    bytes_per_second: float
    shared_bytes: int  # of one block at most


# The clock is the highest of the SXM module: at any other the bounds would not be bounds.
H200 = Gpu("H200", "90", 132, 1.98e9, 4.3e12, 227 * 1024)

# Lanes of one multiprocessor a cycle (CUDA Programming Guide, arithmetic throughput, 9.0); what is
# not named here runs at the full rate of 128.
HALF_RATE = frozenset(
    "IADD3 VIADD IMNMX VIMNMX ISETP LOP3 PLOP3 SEL FSEL SHF LEA PRMT FMNMX FSETP".split()
)
PREDICTION = f"""\
Predicted, never measured: none of these kernels has run on a GPU. Each figure is a lower bound
for the {H200.name} ({H200.multiprocessors} multiprocessors of 4 schedulers, \
{H200.bytes_per_second / 1e12:g} TB/s of copying) at its highest clock, {H200.hertz / 1e9:g} GHz,
which it need not hold.

    I          = instructions of a warp, each loop as often as its plan says, in the fast case:
                 all corners inside the image, no conflict between sums in shared memory
    warps      = blocks * ceil(threads / 32)
    clocks     = {H200.multiprocessors} * {H200.hertz / 1e9:g}e9, of all multiprocessors a second
    issue      = warps * I / (4 * clocks)          one instruction a scheduler and cycle
    integer    = warps * I_half / (2 * clocks)     those of I that run at half the rate
    load/store = warps * I_lsu / clocks            128 bytes, a shuffle or a sum a cycle
    kernels    = sum over a pass's kernels of the largest of these three
    memory     = bytes of all tensors, each moved once / {H200.bytes_per_second / 1e12:g}e12
    predicted  = the larger of kernels and memory"""
GOALS = """\
A goal that a lower bound misses is out of reach of these kernels; one that it meets may still be
missed on a GPU. How the times compare with other implementations cannot be predicted."""


@dataclass(frozen=True)
class Plan:
    """One launch for a layer, see print_plans.cpp."""

    direction: str  # "forward" or "backward"
    kernel: str
    blocks: int
    threads: int
    shared_bytes: int
    points: int  # in a turn of the main loop, handed from lane to lane
    stores: int  # in a turn of the main loop, to clear shared memory
    exclusive: bool  # whether it writes its result, and adds nothing in global memory
    turns: list[int]  # of each outermost loop

    @property
    def warps(self) -> int:
        """Of all blocks."""
        return self.blocks * math.ceil(self.threads / 32)


def build_planner(folder: Path) -> Path:
    """Compiles print_plans.cpp."""
    program = folder / "print_plans"
    source = Path(__file__).with_name("print_plans.cpp")
    compiler = shlex.split(os.environ.get("CXX", "").strip() or "c++")
    run([*compiler, "-std=c++17", "-O1", "-w", str(source), "-o", str(program)])
    return program


def plans(planner: Path, layer: Layer, dtype: torch.dtype) -> list[Plan]:
    """The launches of one layer on the GPU of the prediction."""
    numbers = [H200.multiprocessors, H200.shared_bytes, layer.batch, layer.side, layer.side]
    numbers += [layer.groups, layer.channels // layer.groups, DTYPES[dtype]]
    found = []
    for line in run([str(planner), *map(str, numbers)]).splitlines():
        direction, name, *rest = line.split()
        blocks, threads, shared, points, stores, exclusive, *turns = map(int, rest)
        (kernel,) = demangled([f"_Z{name}"])
        parts = (direction, kernel, blocks, threads, shared, points, stores, bool(exclusive), turns)
        found.append(Plan(*parts))
    return found


def fast_case(plan: Plan) -> FastCase:
    """The way through a kernel: all corners inside its window, and all gradients finite."""
    if plan.kernel.startswith("WindowInput"):
        return FastCase(rare="CALL|REDG" if plan.exclusive else "CALL", wanted="ATOMS")
    if plan.kernel.startswith("MatrixInput") and plan.exclusive:
        return FastCase(rare="CALL|ATOMS|REDG", wanted="STG")
    if plan.kernel.startswith("MatrixInput"):
        return FastCase(rare=r"CALL|ATOMS|STG|REDG.*F32\.", wanted=r"REDG.*F32x2")
    return FastCase()


def bounds(executed: list[Instruction], warps: int) -> dict[str, float]:
    """Least seconds for each reason but memory; the formulas are in PREDICTION."""
    half_rate = sum(found.name in HALF_RATE for found in executed)
    per_cycle = H200.multiprocessors * H200.hertz
    return {
        "issue": warps * len(executed) / (4 * per_cycle),
        "integer": warps * half_rate / (2 * per_cycle),
        "load/store": warps * sum(map(load_store_cycles, executed)) / per_cycle,
    }


def load_store_cycles(found: Instruction) -> float:
    """Of one warp: 128 bytes, a shuffle or a sum a cycle; nothing for what a predicate guards."""
    if found.predicate or found.name not in ("LDG", "LDS", "LDSM", "STS", "ATOMS", "SHFL"):
        return 0
    if found.name == "LDSM":  # matrices of 8 x 8 numbers, 128 bytes each
        return int(found.opcode[-1]) if found.opcode[-1] in "24" else 1
    return found.width / 32 if found.name in ("LDG", "LDS", "STS") else 1


def prediction_tables(codes: Mapping[str, Code]) -> list[Table]:
    """Least times of InternImage-T's layers and the wide one: a pass, each kernel in it, the goals.

    Args:
        codes: Of each kernel, by its name.
    """
    columns = ["layer", "dtype", "kernels us", "memory us", "predicted us", "times memory"]
    passes = Table(f"Predicted times on an {H200.name}, batch {BATCH}", columns)
    passes.note = PREDICTION
    columns = ["layer", "kernel", "blocks", "threads", "shared bytes", "instructions of a warp"]
    columns += ["issue us", "integer us", "load/store us"]
    launches = Table("Predicted times, kernel by kernel", columns)
    columns = ["layer", "dtype", "goal", "predicted us", "times memory", "verdict"]
    goals = Table("Goals and predicted times", columns, GOALS)
    with tempfile.TemporaryDirectory() as folder:
        planner = build_planner(Path(folder))
        for direction, layer, dtype in product(
            (FORWARD, BACKWARD), [*stage_layers(BATCH), WIDE], reversed(DTYPES)
        ):
            row, total = f"{direction}, {layer}", 0.0
            for plan in plans(planner, layer, dtype):
                if plan.direction != direction:
                    continue
                executed = codes[plan.kernel].executed(
                    plan.turns, points=plan.points, stores=plan.stores, case=fast_case(plan)
                )
                seconds = bounds(executed, plan.warps)
                total += max(seconds.values())
                launches.add(
                    row,
                    f"`{plan.kernel}`",
                    plan.blocks,
                    plan.threads,
                    plan.shared_bytes,
                    len(executed),
                    *(f"{1e6 * second:.1f}" for second in seconds.values()),
                )
            memory = layer.floor_bytes(dtype, direction) / H200.bytes_per_second
            least = max(total, memory)
            times = [f"{1e6 * second:.1f}" for second in (total, memory, least)]
            name = str(dtype).removeprefix("torch.")
            passes.add(row, name, *times, least / memory)
            if goal := goal_of(layer, dtype, direction):
                words, verdict = goal.judge(1e6 * least, least / memory)
                goals.add(row, name, words, times[-1], least / memory, verdict)
    return [passes, launches, goals]
