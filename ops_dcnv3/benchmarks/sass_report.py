"""What the compiler made of the CUDA kernels, and the times that follow, without a GPU.

    python ops_dcnv3/benchmarks/sass_report.py [--arch 9.0] [--markdown FILE]

Needs nvcc, and cuobjdump of the CUDA toolkit or of the package triton.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from datetime import date
from itertools import product
from pathlib import Path

from measure import Table
from sass import Instruction, Resources, parse_block_sizes, parse_ptxas, parse_sass
from sass_flow import Code, FastCase
from workloads import Shape

PROJECT = Path(__file__).resolve().parents[1]
CUDA_SOURCES = PROJECT / "src" / "ops_dcnv3" / "csrc" / "cuda"
sys.path.insert(0, str(PROJECT))

from cuda_toolkit import NVCC_FLAGS, NoCudaError, Toolkit, read_toolkit  # noqa: E402

DTYPES = {"float32": 1, "bfloat16": 2, "float16": 3}  # as in csrc/dcnv3_params.h
BATCH, DEPTH = 64, 16  # images; channels of a group
# Of a (pixel, group) in all tensors: input and output, offsets and logits; backward, grad_output,
# and three gradients besides.
NUMBERS = {"forward": 2 * DEPTH + 27, "backward": 3 * DEPTH + 2 * 27}


@dataclass(frozen=True)
class Limits:
    """What one multiprocessor can hold (CUDA Programming Guide, table of compute capabilities)."""

    warps: int
    blocks: int
    shared_bytes: int


LIMITS = {
    "80": Limits(64, 32, 164 * 1024),
    "86": Limits(48, 16, 100 * 1024),
    "89": Limits(48, 24, 100 * 1024),
    "90": Limits(64, 32, 228 * 1024),
    "100": Limits(64, 32, 228 * 1024),
    "120": Limits(48, 24, 100 * 1024),
}
REGISTERS = 65536  # of a multiprocessor, allotted to a warp by 256
BLOCK_SHARED = 1024  # bytes of a block that the system takes


@dataclass(frozen=True)
class Gpu:
    """The device of the prediction."""

    name: str
    arch: str
    multiprocessors: int
    hertz: float
    bytes_per_second: float
    shared_bytes: int  # of one block at most


H200 = Gpu("H200", "90", 132, 1.755e9, 4.3e12, 227 * 1024)

# Lanes of one multiprocessor a cycle (CUDA Programming Guide, arithmetic throughput, 9.0); what is
# not named here runs at the full rate of 128.
HALF_RATE = frozenset(
    "IADD3 VIADD IMNMX VIMNMX ISETP LOP3 PLOP3 SEL FSEL SHF LEA PRMT FMNMX FSETP".split()
)
PREDICTION = f"""\
Predicted, never measured: none of these kernels has run on a GPU. Each figure is a lower bound
for the {H200.name} ({H200.multiprocessors} multiprocessors of 4 schedulers at \
{H200.hertz / 1e9:g} GHz, {H200.bytes_per_second / 1e12:g} TB/s of copying).

    I          = instructions of a warp, each loop as often as its plan says, in the fast case:
                 all corners inside the image, no conflict between sums in shared memory
    warps      = blocks * ceil(threads / 32)
    issue      = warps * I / (132 * 4 * 1.755e9)           one instruction a scheduler and cycle
    integer    = warps * I_half / (132 * 2 * 1.755e9)      those of I that run at half the rate
    load/store = warps * I_lsu / (132 * 1.755e9)           128 bytes, a shuffle or a sum a cycle
    kernels    = sum over a pass's kernels of the largest of these three
    memory     = bytes of all tensors, each moved once / 4.3e12
    predicted  = the larger of kernels and memory"""


@dataclass(frozen=True)
class Kernel:
    """What is known of one compiled kernel."""

    name: str  # "forward_vector<Float16, 2>"
    resources: Resources
    threads: int | None  # of a block
    code: Code

    def occupancy(self, arch: str) -> float | None:
        """Share of a multiprocessor's warps that can be there at once."""
        if self.threads is None or arch not in LIMITS:
            return None
        limits, warps = LIMITS[arch], math.ceil(self.threads / 32)
        registers = math.ceil(self.resources.registers * 32 / 256) * 256 * warps
        shared = self.resources.shared + BLOCK_SHARED
        blocks = min(
            limits.blocks,
            limits.warps // warps,
            REGISTERS // registers,
            limits.shared_bytes // shared,
        )
        return blocks * warps / limits.warps


def find_cuobjdump(toolkit: Toolkit) -> str:
    """Path of the disassembler.

    Raises:
        NoCudaError: If neither the CUDA toolkit nor triton has one.
    """
    spec = importlib.util.find_spec("triton")
    triton = Path(spec.origin).parent / "backends/nvidia/bin" if spec and spec.origin else None
    roots = [Path(toolkit.nvcc).resolve().parent, *Path(toolkit.include_dirs[0]).parents]
    for folder in [*roots, *(root / "bin" for root in roots), triton]:
        if folder is not None and (found := shutil.which(str(folder / "cuobjdump"))):
            return found
    raise NoCudaError(
        "no cuobjdump: the CUDA toolkit has none, and triton is not installed (pip install triton)"
    )


def run(command: list[str]) -> str:
    """What a command printed, both streams together; its failure is an error with that."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise RuntimeError(f"sass_report: {shlex.join(command)} failed:\n{done.stdout}")
    return done.stdout


def compile_kernels(toolkit: Toolkit, arch: str) -> list[Kernel]:
    """Compiles every source for one architecture, as the build does, and reads the result."""
    flags = [flag for flag in NVCC_FLAGS if not flag.startswith("-Xcompiler")]
    flags += [*toolkit.host_options, f"-arch=sm_{arch}"]
    kernels = []
    for source in sorted(CUDA_SOURCES.glob("*.cu")):
        with tempfile.TemporaryDirectory() as folder:
            cubin = str(Path(folder) / "kernels.cubin")
            nvcc = [toolkit.nvcc, *flags, "-cubin", "-Xptxas=-v", "--keep", "--keep-dir", folder]
            resources = parse_ptxas(run([*nvcc, str(source), "-o", cubin]))
            (ptx,) = Path(folder).glob("*.ptx")
            threads = parse_block_sizes(ptx.read_text())
            codes = parse_sass(run([find_cuobjdump(toolkit), "-sass", cubin]))
        names = dict(zip(resources, demangled(list(resources)), strict=True))
        for mangled in sorted(resources, key=names.__getitem__):
            parts = (names[mangled], resources[mangled], threads.get(mangled), Code(codes[mangled]))
            kernels.append(Kernel(*parts))
    return kernels


def demangled(names: list[str]) -> list[str]:
    """Names as in the source, without namespaces, results and arguments."""
    lines = run(["c++filt", *names]).splitlines()
    return [re.sub(r"^void dcnv3::entry<|\s*>\(.*\)$|dcnv3::", "", line) for line in lines]


def resources_table(kernels: list[Kernel], arch: str) -> Table:
    """Registers, memory and the kinds of instruction of each kernel."""
    columns = ["kernel", "registers", "spilled bytes", "stack bytes", "shared bytes", "threads"]
    columns += ["occupancy", "instructions", "of a turn", "loads 128/64/32/16 bit", "stores"]
    columns += ["shared loads/stores", "shared atomics", "global atomics", "shuffles"]
    table = Table(f"Kernels for sm_{arch}", columns)
    table.note = (
        "`spilled bytes`: stored and loaded again, by one thread. `occupancy`: in theory, from "
        "registers, threads of a block and shared memory known at compile time. `of a turn`: "
        "instructions that one turn of the largest loop executes in the fast case, loops inside it "
        "once. All other counts are over the whole kernel, its slow cases included."
    )
    for kernel in kernels:
        resources, code = kernel.resources, kernel.code
        occupancy = kernel.occupancy(arch)
        table.add(
            f"`{kernel.name}`",
            resources.registers,
            resources.spill_stores + resources.spill_loads,
            resources.stack,
            resources.shared,
            kernel.threads or "-",
            "-" if occupancy is None else f"{occupancy:.0%}",
            len(code.instructions),
            len(code.turn(code.main_loop)) if code.main_loop else "-",
            "/".join(str(code.count("LDG", width=width)) for width in (128, 64, 32, 16)),
            code.count("STG"),
            f"{code.count('LDS')}/{code.count('STS')}",
            code.count("ATOMS"),
            code.count("ATOMG", "RED", "ATOM", "REDG"),
            code.count("SHFL"),
        )
    return table


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


def plans(planner: Path, shape: Shape, dtype: str) -> list[Plan]:
    """The launches of one layer on the GPU of the prediction."""
    numbers = [H200.multiprocessors, H200.shared_bytes, shape.batch, *shape.size, shape.groups]
    numbers += [DEPTH, DTYPES[dtype]]
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


def prediction_tables(kernels: list[Kernel]) -> list[Table]:
    """Least times of InternImage-T's layers: of each pass, then of each kernel in it."""
    columns = ["layer", "dtype", "kernels us", "memory us", "predicted us", "times memory"]
    passes = Table(f"Predicted times on an {H200.name}, InternImage-T, batch {BATCH}", columns)
    passes.note = PREDICTION
    columns = ["layer", "kernel", "blocks", "threads", "shared bytes", "instructions of a warp"]
    columns += ["issue us", "integer us", "load/store us"]
    launches = Table("Predicted times, kernel by kernel", columns)
    by_name = {kernel.name: kernel for kernel in kernels}
    with tempfile.TemporaryDirectory() as folder:
        planner = build_planner(Path(folder))
        for direction, stage, dtype in product(NUMBERS, range(4), ("float16", "bfloat16")):
            shape, total = Shape("224 px", BATCH, stage), 0.0
            for plan in plans(planner, shape, dtype):
                if plan.direction != direction:
                    continue
                executed = by_name[plan.kernel].code.executed(
                    plan.turns, points=plan.points, stores=plan.stores, case=fast_case(plan)
                )
                seconds = bounds(executed, plan.warps)
                total += max(seconds.values())
                launches.add(
                    f"{direction}, {shape}",
                    f"`{plan.kernel}`",
                    plan.blocks,
                    plan.threads,
                    plan.shared_bytes,
                    len(executed),
                    *(f"{1e6 * second:.1f}" for second in seconds.values()),
                )
            memory = 2 * shape.cells * NUMBERS[direction] / H200.bytes_per_second
            least = max(total, memory)
            times = [f"{1e6 * second:.1f}" for second in (total, memory, least)]
            passes.add(f"{direction}, {shape}", dtype, *times, least / memory)
    return [passes, launches]


def main() -> None:
    """Compiles, prints the report, and writes it where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", default="9.0", help="architecture, default 9.0 (H100, H200)")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the report there too")
    options = parser.parse_args()
    os.environ["TORCH_CUDA_ARCH_LIST"] = options.arch
    try:
        toolkit = read_toolkit()
        if len(toolkit.archs) != 1:
            raise ValueError(f"expected --arch = one architecture, got {options.arch!r}")
        (arch,) = toolkit.archs
        kernels = compile_kernels(toolkit, arch)
    except (NoCudaError, RuntimeError, ValueError) as error:
        sys.exit(f"sass_report: {error}")
    parts = [
        f"# What the compiler made of the CUDA kernels, sm_{arch}",
        f"{date.today()}: `{shlex.join(['python', *sys.argv])}`, nvcc {toolkit.release}. "
        "Compiled, not run.",
        resources_table(kernels, arch).markdown(),
    ]
    if arch == H200.arch:
        parts += [table.markdown() for table in prediction_tables(kernels)]
    report = "\n\n".join(parts)
    print(report)
    if options.markdown:
        options.markdown.write_text(report + "\n")


if __name__ == "__main__":
    main()
