"""What the compiler made of the CUDA kernels, and the times that follow, without a GPU.

    python ops_dcnv3/benchmarks/sass_report.py [--arch 9.0] [--markdown FILE]

Needs nvcc, and cuobjdump of the CUDA toolkit or of the package triton.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import os
import shlex
import shutil
import sys
import tempfile
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from measure import Table
from sass import Resources, parse_block_sizes, parse_ptxas, parse_sass
from sass_flow import Code
from sass_times import H200, prediction_tables
from sass_tools import demangled, run

PROJECT = Path(__file__).resolve().parents[1]
CUDA_SOURCES = PROJECT / "src" / "ops_dcnv3" / "csrc" / "cuda"
sys.path.insert(0, str(PROJECT))

from cuda_toolkit import NVCC_FLAGS, NoCudaError, Toolkit, read_toolkit  # noqa: E402


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


def main() -> None:
    """Compiles, prints the report, and writes it where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", default="9.0", help="architecture, default 9.0 (H100, H200)")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the report there too")
    options = parser.parse_args()
    if options.markdown and not options.markdown.parent.is_dir():
        parser.error(f"expected --markdown in a folder that exists, got {options.markdown}")
    os.environ["TORCH_CUDA_ARCH_LIST"] = options.arch
    try:
        toolkit = read_toolkit(strict=True)
        if len(toolkit.archs) != 1:
            raise ValueError(f"expected --arch = one architecture, got {options.arch!r}")
        (arch,) = toolkit.archs
        kernels = compile_kernels(toolkit, arch)
    except (NoCudaError, RuntimeError, ValueError) as error:
        sys.exit(f"sass_report: {str(error).replace('TORCH_CUDA_ARCH_LIST', '--arch')}")
    parts = [
        f"# What the compiler made of the CUDA kernels, sm_{arch}",
        f"{date.today()}: `{shlex.join(['python', *sys.argv])}`, nvcc {toolkit.release}. "
        "Compiled, not run.",
        resources_table(kernels, arch).markdown(),
    ]
    if arch == H200.arch:
        codes = {kernel.name: kernel.code for kernel in kernels}
        parts += [table.markdown() for table in prediction_tables(codes)]
    report = "\n\n".join(parts)
    print(report)
    if options.markdown:
        options.markdown.write_text(report + "\n")


if __name__ == "__main__":
    main()
