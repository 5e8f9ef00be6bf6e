"""Builds ops_dcnv3: Python plus, where a C++ compiler is at hand, one extension for every torch.

Beside it the CPU kernels become a library for ONNX Runtime, which needs neither torch nor the
headers of ONNX Runtime. With nvcc at hand the extension holds the CUDA kernels too;
cuda_toolkit.py has the settings for it.

Environment:
    OPS_DCNV3_REQUIRE_NATIVE=1  fail where the extension cannot be built, do not install without
    USE_CUDA                    auto (default), 0 or 1: with the CUDA kernels where possible, never,
                                or fail without them
    CXX                         the C++ compiler
    MAX_JOBS                    compiler processes at a time, default: the number of processors
"""

import os
import platform
import re
import shlex
import subprocess
import sys
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # pip runs this file without its folder on the path

from cuda_objects import compile_all  # noqa: E402
from cuda_toolkit import NoCudaError, Toolkit, use_cuda, wanted_toolkit  # noqa: E402

CSRC = Path("src/ops_dcnv3/csrc")
ONNXRUNTIME = "ops_dcnv3._onnxruntime"
VERSION_FILE = (HERE / "src/ops_dcnv3/_version.py").read_text()
VERSION = re.search(r'__version__ = "([^"]+)"', VERSION_FILE).group(1)
INTERFACE = re.search(r"INTERFACE = (\d+)", VERSION_FILE).group(1)
os.environ["CXX"] = os.environ.get("CXX", "").strip() or "c++"  # setuptools reads it too
REQUIRE_NATIVE = os.environ.get("OPS_DCNV3_REQUIRE_NATIVE", "0") == "1"

# The lowest torch that the binary runs on; its C interface is stable from there on. No Python
# header is used.
TORCH_TARGET = "0x020a000000000000"  # 2.10

# Floating-point errors and traps are never looked at, and products may be fused into sums; NaN and
# infinity keep their meaning (no -ffast-math).
KERNEL_FLAGS = [
    "-O3",
    "-fvisibility=hidden",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=fast",
]
LEVEL_FLAGS = {
    "v2": ["-march=x86-64-v2"],
    "v3": ["-march=x86-64-v3"],
    "v4": ["-march=x86-64-v4", "-mprefer-vector-width=512"],
    "baseline": [],  # other processors than x86-64
}


def kernel_levels() -> list[str]:
    """Instruction-set levels to compile the kernels for, see csrc/cpu/dispatch.cpp."""
    return ["v2", "v3", "v4"] if platform.machine() in ("x86_64", "AMD64") else ["baseline"]


# What the sources ask of a compiler, in short: C++17 and its library, vector types, and the names
# of the instruction sets (gcc >= 11, clang >= 12).
TRIAL = """
#include <atomic>
#include <string>
typedef float Floats __attribute__((vector_size(16)));
typedef int Ints __attribute__((vector_size(16)));
Ints truncate(Floats x) { return __builtin_convertvector(x, Ints); }
template <int n> int f() { if constexpr (n > 0) return n; else return -n; }
int g() { return f<1>() + static_cast<int>(std::string(f<2>(), 'x').size()); }
"""


def try_compiler() -> str:
    """The reason why CXX cannot build the extension; empty if a small library builds."""
    flags = ["-std=c++17", *LEVEL_FLAGS[kernel_levels()[-1]], "-fPIC", "-shared"]
    try:
        compiler = shlex.split(os.environ["CXX"])
        with tempfile.TemporaryDirectory() as folder:
            output = str(Path(folder) / "trial.so")
            trial = subprocess.run(
                [*compiler, *flags, "-x", "c++", "-", "-o", output],
                input=TRIAL,
                capture_output=True,
                text=True,
            )
    except (OSError, ValueError) as error:
        return f"no C++ compiler: CXX is {os.environ['CXX']!r} ({error})"
    if trial.returncode:
        lines = trial.stderr.strip().splitlines() or [f"exit code {trial.returncode}"]
        return (
            f"{os.environ['CXX']!r} cannot compile the kernels (gcc >= 11, clang >= 12 can): "
            f"{lines[0]}"
        )
    return ""


def why_not_native() -> str:
    """The reason why the extension cannot be built here; empty if it can."""
    if sys.platform == "win32":
        return "the CPU kernels need gcc or clang, which this build does not look for on Windows"
    if reason := try_compiler():
        return reason
    try:
        import torch  # noqa: F401
    except ImportError:
        return "torch is not installed in the build environment (use pip's --no-build-isolation)"
    return ""


class BuildKernels(build_ext):
    """Compiles one source several times with other flags, and some by nvcc."""

    def build_extension(self, ext: Extension) -> None:
        """Compiles and links ``ext``."""
        if ext.name == ONNXRUNTIME:
            objects = self.compile_cpp(onnxruntime_tasks())
            # its own kernels, whatever the process has loaded before
            own = ["-Wl,-Bsymbolic"] if sys.platform.startswith("linux") else []
            self.link(ext, objects, extra_preargs=own)
            return
        folder = torch_folder()
        toolkit = wanted_toolkit()
        objects = self.compile_cpp(cpp_tasks(toolkit), "-isystem", str(folder / "include"))
        libraries, library_dirs = ["torch", "torch_cpu", "c10"], [str(folder / "lib")]
        flags = []
        if toolkit is not None:
            sources = sorted((CSRC / "cuda").glob("*.cu"))
            objects += compile_all(toolkit, sources, HERE / "build" / "cuda", max_jobs())
            # The runtime inside and its names hidden: whatever CUDA the process has beside it.
            flags = ["-Wl,--no-as-needed", "-Wl,--exclude-libs,libcudart_static.a"]
            libraries += ["cudart_static", "dl", "rt", "pthread"]
            library_dirs += toolkit.library_dirs
        self.link(ext, objects, libraries=libraries, library_dirs=library_dirs, extra_preargs=flags)

    def compile_cpp(self, tasks: list[tuple[Path, str, list[str]]], *flags: str) -> list[str]:
        """Compiles what no other library has asked for yet; returns the names of the objects."""
        with ThreadPoolExecutor(max_jobs()) as pool:
            for source, level, own in tasks:
                if (source, level) not in _objects:
                    _objects[source, level] = pool.submit(
                        self.compiler.compile,
                        [str(source)],
                        output_dir=str(Path(self.build_temp) / level),
                        extra_postargs=[*flags, *own],
                    )
        return [name for source, level, _ in tasks for name in _objects[source, level].result()]

    def link(self, ext: Extension, objects: list[str], **settings: list[str]) -> None:
        """Makes the shared library of ``ext``."""
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        self.compiler.link_shared_object(objects, str(target), target_lang="c++", **settings)


# By source and level; both libraries have the kernels.
_objects: dict[tuple[Path, str], Future[list[str]]] = {}


def max_jobs() -> int:
    """How many compilers may run at a time."""
    wanted = os.environ.get("MAX_JOBS", "").strip() or str(os.cpu_count() or 1)
    if not wanted.isdecimal() or int(wanted) < 1:
        raise ValueError(f"ops_dcnv3: expected MAX_JOBS >= 1, got {wanted!r}")
    return int(wanted)


def torch_folder() -> Path:
    """Where PyTorch is installed."""
    import torch

    return Path(torch.__file__).parent


COMMON_FLAGS = ["-std=c++17", "-fPIC", "-Wall", "-Wextra", "-Wno-psabi", "-g0"]
Task = tuple[Path, str, list[str]]  # for the C++ compiler: source, subfolder of the object, flags


def kernel_tasks() -> list[Task]:
    """The CPU kernels and the choice among them, which know nothing of PyTorch."""
    version = f"-DOPS_DCNV3_INTERFACE={INTERFACE}"
    tasks = [(CSRC / "cpu/dispatch.cpp", "", [*COMMON_FLAGS, "-O2", version])]
    for level in kernel_levels():
        # gcc 12 warns of its own AVX-512 header (-Wmaybe-uninitialized)
        special = [f"-DDCNV3_LEVEL={level}", "-Wno-maybe-uninitialized"]
        flags = [*COMMON_FLAGS, *KERNEL_FLAGS, *LEVEL_FLAGS[level], *special]
        tasks.append((CSRC / "cpu/kernels.cpp", level, flags))
    return tasks


def cpp_tasks(toolkit: Toolkit | None) -> list[Task]:
    """What the extension for PyTorch is made of."""
    binding = [*COMMON_FLAGS, "-O2", f"-DTORCH_TARGET_VERSION={TORCH_TARGET}"]
    # PyTorch's headers put their own path into messages: not that of the machine of the build
    binding.append(f"-fmacro-prefix-map={torch_folder()}=torch")
    tasks = [(CSRC / "cpu/binding.cpp", "", binding), *kernel_tasks()]
    if toolkit is not None:
        flags = [f'-DOPS_DCNV3_CUDA_ARCHS="{" ".join(toolkit.archs)}"']
        flags += [word for folder in toolkit.include_dirs for word in ("-isystem", folder)]
        for source in sorted((CSRC / "cuda").glob("*.cpp")):
            tasks.append((source, "", [*binding, *flags]))
    return tasks


def onnxruntime_tasks() -> list[Task]:
    """What the library for ONNX Runtime is made of."""
    flags = [*COMMON_FLAGS, "-O2", "-fvisibility=hidden"]
    return [(CSRC / "onnxruntime/custom_op.cpp", "", flags), *kernel_tasks()]


def main() -> None:
    """Describes the distribution to setuptools."""
    reason = why_not_native()
    for setting, demanded in {
        "OPS_DCNV3_REQUIRE_NATIVE=1": REQUIRE_NATIVE,
        "USE_CUDA=1": use_cuda() == "1",
    }.items():
        if reason and demanded:
            sys.exit(f"ops_dcnv3: {setting}, but {reason}")
    if reason:
        print(f"ops_dcnv3: installing WITHOUT the compiled kernels: {reason}", file=sys.stderr)
    csrc = [path.relative_to(HERE) for path in sorted((HERE / CSRC).rglob("*")) if path.is_file()]
    extensions = [
        Extension(
            name,
            sources=[str(path) for path in csrc if path.suffix == ".cpp"],
            depends=[str(path) for path in csrc if path.suffix != ".cpp"],
            py_limited_api=True,
        )
        for name in ("ops_dcnv3._C", ONNXRUNTIME)
    ]
    setup(
        name="ops_dcnv3",
        version=VERSION,
        description="DCNv3, the deformable convolution of InternImage, for every recent PyTorch",
        long_description=(HERE / "README.md").read_text(),
        long_description_content_type="text/markdown",
        license="MIT",
        license_files=["LICENSE"],
        python_requires=">=3.10",
        install_requires=["torch>=2.10"],
        packages=find_packages("src"),
        package_dir={"": "src"},
        package_data={"ops_dcnv3": ["py.typed"]},
        ext_modules=[] if reason else extensions,
        cmdclass={"build_ext": BuildKernels},
        options={"bdist_wheel": {"py_limited_api": "cp310"}} if not reason else {},
        zip_safe=False,
    )


try:
    main()
except (ValueError, NoCudaError) as error:
    sys.exit(str(error))
