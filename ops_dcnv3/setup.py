"""Builds ops_dcnv3: Python plus, where a C++ compiler is at hand, one extension for every torch.

Environment:
    OPS_DCNV3_REQUIRE_NATIVE=1  fail where the extension cannot be built, do not install without
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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

HERE = Path(__file__).resolve().parent
CSRC = Path("src/ops_dcnv3/csrc")
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
    """Compiles one source several times with other flags, which setuptools alone cannot."""

    def build_extension(self, ext: Extension) -> None:
        """Compiles and links ``ext``."""
        from torch.utils.cpp_extension import include_paths, library_paths

        common = ["-std=c++17", "-fPIC", "-Wall", "-Wextra", "-Wno-psabi", "-g0"]
        jobs = [
            (CSRC / "cpu/binding.cpp", "", ["-O2", f"-DTORCH_TARGET_VERSION={TORCH_TARGET}"]),
            (CSRC / "cpu/dispatch.cpp", "", ["-O2", f"-DOPS_DCNV3_INTERFACE={INTERFACE}"]),
        ]
        for level in kernel_levels():
            # gcc 12 warns of its own AVX-512 header (-Wmaybe-uninitialized)
            flags = [
                *KERNEL_FLAGS,
                *LEVEL_FLAGS[level],
                f"-DDCNV3_LEVEL={level}",
                "-Wno-maybe-uninitialized",
            ]
            jobs.append((CSRC / "cpu/kernels.cpp", level, flags))

        def compile_one(job: tuple[Path, str, list[str]]) -> list[str]:
            source, level, flags = job
            return self.compiler.compile(
                [str(source)],
                output_dir=str(Path(self.build_temp) / level),
                include_dirs=include_paths(),
                extra_postargs=[*common, *flags],
            )

        with ThreadPoolExecutor(int(os.environ.get("MAX_JOBS", os.cpu_count() or 1))) as pool:
            objects = [name for names in pool.map(compile_one, jobs) for name in names]
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        self.compiler.link_shared_object(
            objects,
            str(target),
            libraries=["torch", "torch_cpu", "c10"],
            library_dirs=library_paths(),
            target_lang="c++",
        )


def main() -> None:
    """Describes the distribution to setuptools."""
    reason = why_not_native()
    if reason and REQUIRE_NATIVE:
        sys.exit(f"ops_dcnv3: OPS_DCNV3_REQUIRE_NATIVE=1, but {reason}")
    if reason:
        print(f"ops_dcnv3: installing WITHOUT the compiled kernels: {reason}", file=sys.stderr)
    extension = Extension(
        "ops_dcnv3._C",
        sources=[str(path.relative_to(HERE)) for path in sorted((HERE / CSRC).rglob("*.cpp"))],
        depends=[str(path.relative_to(HERE)) for path in sorted((HERE / CSRC).rglob("*.h"))],
        py_limited_api=True,
    )
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
        ext_modules=[] if reason else [extension],
        cmdclass={"build_ext": BuildKernels},
        options={"bdist_wheel": {"py_limited_api": "cp310"}} if not reason else {},
        zip_safe=False,
    )


main()
