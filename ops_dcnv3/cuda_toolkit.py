"""The CUDA toolkit of this machine: finds nvcc, tries it, chooses the architectures.

It asks neither PyTorch nor a driver for a GPU: the machine that builds need not have one.

    python ops_dcnv3/cuda_toolkit.py      # what a build would do here, and why

Environment:
    USE_CUDA              auto (default): with nvcc where it is found and works; 0: never; 1: must
    CUDA_HOME, CUDA_PATH  folder of the toolkit; else nvcc on PATH, else /usr/local/cuda
    TORCH_CUDA_ARCH_LIST  architectures, as in "8.0;9.0;12.0+PTX"; native: those of this machine's
                          GPUs, 9.0 where there are none; default: see DEFAULT_ARCHS
    NVCC_CCBIN            nvcc's host compiler, default: CXX
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

# A100; RTX 30; RTX 40, L4; H100, H200; B200; RTX 50. The code of 8.0 runs on 8.7 too, and so on
# within a major version. Devices that no code is for compile PTX when they first load it: that of
# the last one if they are newer, that of 9.0 if they lie between, as Thor does (11.0).
DEFAULT_ARCHS = ("80", "86", "89", "90", "100", "120")
PTX_BETWEEN = "90"

LOWEST_ARCH = 80  # the kernels calculate in bfloat16

# PyTorch's names, without the minor versions that run the code of the one before.
NAMES = {
    "Maxwell": "5.2",
    "Pascal": "6.1",
    "Volta": "7.0",
    "Turing": "7.5",
    "Ampere": "8.0 8.6+PTX",
    "Ampere+Tegra": "8.7",
    "Ada": "8.9+PTX",
    "Hopper": "9.0+PTX",
    "Blackwell": "10.0 12.0+PTX",
    "Blackwell+Tegra": "11.0",
}

# No fast-math: positions that are NaN or infinite must fail comparisons.
NVCC_FLAGS = (
    "-O3",
    "-std=c++17",
    "--expt-relaxed-constexpr",
    "-Xcompiler=-fPIC,-fvisibility=hidden",
)

# What the sources ask of nvcc, its headers and its host compiler, in short.
TRIAL = """
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <type_traits>
struct Arguments { unsigned* matrices; float* sums; };
template <typename T> __global__ void trial(const __grid_constant__ Arguments arguments) {
  __shared__ __align__(16) T rows[256];
  if constexpr (std::is_same_v<T, __nv_bfloat16>) rows[threadIdx.x] = __hadd(rows[0], rows[1]);
  __syncthreads();
  unsigned a[4], *b = arguments.matrices;
  float d[4] = {};
  const unsigned row = static_cast<unsigned>(__cvta_generic_to_shared(rows + 8 * threadIdx.x));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(a[0]), "=r"(a[1]), "=r"(a[2]), "=r"(a[3]) : "r"(row));
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
               "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#if __CUDA_ARCH__ >= 900
  atomicAdd(reinterpret_cast<float2*>(arguments.sums), make_float2(d[0], d[1]));
#else
  atomicAdd(arguments.sums, d[0] + d[1] + d[2] + d[3]);
#endif
}
void launch(Arguments arguments) { trial<__nv_bfloat16><<<1, 32>>>(arguments); }
"""


class NoCudaError(Exception):
    """Holds the reason why the CUDA kernels cannot be built here."""


@dataclass(frozen=True)
class Toolkit:
    """A CUDA toolkit that has compiled a trial.

    Attributes:
        nvcc: Path of the compiler.
        release: As ``"13.0"``.
        version: All that nvcc says of itself.
        host_options: The options that name its host compiler; empty for its own choice.
        include_dirs: Folders of the headers.
        library_dirs: Folders of the libraries, libcudart_static.a in one of them.
        archs: To compile for, as ``("80", "90", "90+PTX")``.
    """

    nvcc: str
    release: str
    version: str
    host_options: tuple[str, ...]
    include_dirs: tuple[str, ...]
    library_dirs: tuple[str, ...]
    archs: tuple[str, ...]


def use_cuda() -> str:
    """Returns ``"auto"``, ``"0"`` or ``"1"``, as the environment says.

    Raises:
        ValueError: If it says something else.
    """
    use = os.environ.get("USE_CUDA", "").strip().lower() or "auto"
    if use not in ("auto", "0", "1"):
        raise ValueError(f"ops_dcnv3: expected USE_CUDA = auto, 0 or 1, got {use!r}")
    return use


def wanted_toolkit() -> Toolkit | None:
    """Returns the toolkit to build with, or None, with the reason on standard error.

    Raises:
        ValueError: If ``USE_CUDA`` is wrong; with ``USE_CUDA=1``, if ``TORCH_CUDA_ARCH_LIST`` is.
        NoCudaError: If ``USE_CUDA=1`` and the kernels cannot be built.
    """
    use = use_cuda()
    try:
        if use == "0":
            raise NoCudaError("USE_CUDA=0")
        return read_toolkit(strict=use == "1")
    except NoCudaError as reason:
        if use == "1":
            raise NoCudaError(f"ops_dcnv3: USE_CUDA=1, but {reason}") from reason
        print(f"ops_dcnv3: building WITHOUT the CUDA kernels: {reason}", file=sys.stderr)
        return None


def read_toolkit(*, strict: bool = False) -> Toolkit:
    """Finds the toolkit and compiles a trial with it.

    Args:
        strict: Whether a wrong entry of ``TORCH_CUDA_ARCH_LIST`` is an error, see choose_archs.

    Raises:
        NoCudaError: If there is none, or none that works.
        ValueError: If ``strict``, and ``TORCH_CUDA_ARCH_LIST`` is wrong.
    """
    nvcc, host = find_nvcc(), host_options()
    release, version = describe_nvcc(nvcc)
    supported = set(re.findall(r"compute_(\d+)", output_of([nvcc, "--list-gpu-arch"])))
    if not supported:
        raise NoCudaError(f"{nvcc} does not name its architectures")
    wanted = os.environ.get("TORCH_CUDA_ARCH_LIST", "")
    archs = choose_archs(wanted, supported, strict=strict)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "trial.cu").write_text(TRIAL)
        numbers = [arch.partition("+")[0] for arch in (archs[0], archs[-1])]
        ends = tuple(dict.fromkeys(numbers))  # what differs between architectures, differs here
        command = [nvcc, *NVCC_FLAGS, *host, *code_options(ends), "-c", "trial.cu"]
        # the commands that it would run name the folders of this toolkit, whatever its layout
        plan = output_of([*command, "--dryrun"], folder)
        output_of(command, folder)
    library_dirs = directories(plan, "LIBRARIES")
    if not any((Path(name) / "libcudart_static.a").exists() for name in library_dirs):
        raise NoCudaError(f"{nvcc} comes without libcudart_static.a")
    include_dirs = directories(plan, "INCLUDES") + directories(plan, "SYSTEM_INCLUDES")
    return Toolkit(nvcc, release, version, host, include_dirs, library_dirs, archs)


def find_nvcc() -> str:
    """Returns the path of nvcc.

    Raises:
        NoCudaError: If there is none; a folder that the environment names must hold it.
    """
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        if folder := os.environ.get(variable, "").strip():
            if found := shutil.which(str(Path(folder) / "bin" / "nvcc")):
                return found
            raise NoCudaError(f"no nvcc: {variable} is {folder!r}, which has no bin/nvcc")
    found = shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")
    if not found:
        raise NoCudaError("no nvcc: it is not on PATH, and CUDA_HOME is not set")
    return found


def describe_nvcc(nvcc: str) -> tuple[str, str]:
    """Returns the release, as ``"13.0"``, and all that nvcc says of itself.

    Raises:
        NoCudaError: If it does not say its release.
    """
    version = output_of([nvcc, "--version"])
    release = re.search(r"release (\d+\.\d+)", version)
    if release is None:
        raise NoCudaError(f"{nvcc} does not name its release")
    return release[1], version


def choose_archs(wanted: str, supported: set[str], *, strict: bool = False) -> tuple[str, ...]:
    """Returns the architectures to compile for, lowest first, as ``("80", "90", "90+PTX")``.

    Args:
        wanted: The value of ``TORCH_CUDA_ARCH_LIST``; empty for the default, ``"native"`` for those
            of this machine's GPUs that nvcc compiles for, for 9.0 where there are none.
        supported: What nvcc compiles for, as ``{"80", "90"}``.
        strict: Whether an entry that is no architecture, or none of this nvcc, is an error.
            Otherwise a note says that it is left out: such lists are set for a whole machine.

    Raises:
        ValueError: If ``strict``, and ``wanted`` has such an entry.
        NoCudaError: If nothing is left that nvcc and the kernels both know.
    """
    supported = {arch for arch in supported if int(arch) >= LOWEST_ARCH}
    if not wanted.strip(" ;,"):
        archs = [arch for arch in DEFAULT_ARCHS if arch in supported]
        if not archs:
            raise NoCudaError(f"nvcc compiles for none of {', '.join(map(dotted, DEFAULT_ARCHS))}")
        portable = {archs[-1], PTX_BETWEEN} & set(archs)
        return in_order({*archs, *(f"{arch}+PTX" for arch in portable)})
    if wanted.strip() == "native":
        archs = sorted(gpu_archs() & supported, key=int)
        if not archs and "90" not in supported:
            raise NoCudaError("nvcc compiles neither for this machine's GPUs nor for 9.0")
        return tuple(archs or ["90"])
    chosen: set[str] = set()
    for name in re.split(r"[\s;,]+", wanted.strip(" ;,")):
        for entry in NAMES.get(name, name).split():
            try:
                chosen |= read_entry(entry, supported)
            except ValueError as error:
                if strict:
                    raise
                print(f"{error}; it is left out", file=sys.stderr)
    if not chosen:
        raise NoCudaError(
            f"TORCH_CUDA_ARCH_LIST is {wanted!r}, and of that nvcc and the kernels know nothing"
        )
    return in_order(chosen)


def read_entry(entry: str, supported: set[str]) -> set[str]:
    """Returns what an entry as ``"9.0"`` or ``"9.0a+PTX"`` asks for; nothing if it is too old.

    Args:
        entry: One architecture. The suffixes of code for one version alone (a) or one family (f)
            are dropped: the kernels use nothing of the kind.
        supported: What nvcc and the kernels both know.

    Raises:
        ValueError: If it has another form, or nvcc does not compile for it.
    """
    match = re.fullmatch(r"(\d+)\.(\d)[af]?(\+PTX)?", entry)
    if match is None:
        raise ValueError(
            "ops_dcnv3: expected TORCH_CUDA_ARCH_LIST = architectures as in "
            f"'8.0;9.0;12.0+PTX', got {entry!r}"
        )
    arch = match[1] + match[2]
    if int(arch) < LOWEST_ARCH:  # no error: Triton's kernels serve such GPUs
        print(f"ops_dcnv3: no CUDA kernels for {entry}: they need 8.0", file=sys.stderr)
        return set()
    if arch not in supported:
        known = ", ".join(map(dotted, sorted(supported, key=int)))
        raise ValueError(
            f"ops_dcnv3: expected TORCH_CUDA_ARCH_LIST = some of {known}, which nvcc compiles "
            f"for, got {entry!r}"
        )
    return {arch, f"{arch}+PTX"} if match[3] else {arch}


def in_order(archs: set[str]) -> tuple[str, ...]:
    """Returns them with the lowest first, PTX behind the code of its architecture."""
    return tuple(sorted(archs, key=lambda arch: (int(arch.partition("+")[0]), arch)))


def gpu_archs() -> set[str]:
    """Returns the architectures of this machine's GPUs, as its driver names them."""
    command = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        printed = subprocess.run(command, capture_output=True, text=True).stdout
    except OSError:
        return set()
    return {line.replace(".", "") for line in re.findall(r"^\d+\.\d$", printed, re.MULTILINE)}


def dotted(arch: str) -> str:
    """Returns ``"12.0"`` for ``"120"``."""
    return f"{arch[:-1]}.{arch[-1]}"


def host_options() -> tuple[str, ...]:
    """Returns the options that make nvcc use the compiler of the other sources."""
    words = shlex.split(os.environ.get("CXX", "").strip() or "c++")
    # a launcher before the compiler (`ccache g++`) cannot be told to nvcc
    return () if os.environ.get("NVCC_CCBIN") or len(words) != 1 else ("-ccbin", words[0])


def code_options(archs: tuple[str, ...]) -> list[str]:
    """Returns the options that make nvcc compile for these architectures."""
    kinds = [(arch.partition("+")[0], "compute" if "+" in arch else "sm") for arch in archs]
    return [f"-gencode=arch=compute_{number},code={kind}_{number}" for number, kind in kinds]


def output_of(command: list[str], folder: str | None = None) -> str:
    """Returns what a command of the toolkit printed, both streams together.

    Raises:
        NoCudaError: If it cannot be run or fails; with the line that says why.
    """
    try:
        done = subprocess.run(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
    except OSError as error:
        raise NoCudaError(f"{command[0]} cannot be run ({error})") from error
    if done.returncode:
        lines = done.stdout.strip().splitlines() or [f"exit code {done.returncode}"]
        line = next((line for line in lines if "error" in line.lower()), lines[0])
        raise NoCudaError(f"{command[0]} cannot compile the kernels: {line}")
    return done.stdout


def directories(plan: str, name: str) -> tuple[str, ...]:
    """Returns the folders in one line ``#$ NAME="-Ifolder" ...`` of nvcc's plan."""
    match = re.search(rf"^#\$ {name}=(.*)$", plan, re.MULTILINE)
    words = [re.sub("^-[IL]", "", word) for word in shlex.split(match[1] if match else "")]
    return tuple(os.path.normpath(word) for word in words if os.path.isabs(word))


def main() -> None:
    """Prints what a build would do here."""
    try:
        toolkit = wanted_toolkit()
    except (ValueError, NoCudaError) as error:
        sys.exit(str(error))
    if toolkit is not None:
        print(
            f"ops_dcnv3: building the CUDA kernels for {' '.join(toolkit.archs)} "
            f"by {toolkit.nvcc} {toolkit.release}"
        )


if __name__ == "__main__":
    main()
