"""Compiles the plugin for the host, and for a GPU by CMake; finds TensorRT's headers and nvcc."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = ROOT / "tensorrt" / "plugin"
HOST = Path(__file__).with_name("plugin_host")
OPERATOR = ROOT / "ops_dcnv3"
COMPILER = os.environ.get("CXX", "c++").split()[0]
ARCHITECTURE = "90"  # one is enough to compile, link and load

FLAGS = (
    *("-std=c++17", "-O1", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror"),
    *("-Wno-psabi", "-Wno-unknown-pragmas"),
    *(f"-I{folder}" for folder in (PLUGIN, OPERATOR / "src/ops_dcnv3/csrc")),
    f"-I{OPERATOR / 'tests/cuda_host'}",
)


def find_nvcc() -> str:
    """The path of nvcc; skips where there is none."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or "/usr/local/cuda"
    found = shutil.which("nvcc") or shutil.which(f"{home}/bin/nvcc")
    if found is None:
        pytest.skip("no nvcc (looked for on PATH and in CUDA_HOME)")
    return found


def tensorrt_folder() -> Path:
    """Where TensorRT's headers are; skips where nobody has said."""
    folder = os.environ.get("TENSORRT_DIR", "").strip()
    if not folder:
        pytest.skip(
            "TENSORRT_DIR is not set: the folder whose include/ holds NvInferRuntime.h; "
            "tensorrt/README.md names where to get the headers"
        )
    return Path(folder)


def cuda_includes(folder: Path) -> list[str]:
    """The folders of CUDA's headers, as nvcc passes them on: TensorRT's include them."""
    source = folder / "empty.cu"
    source.touch()
    command = [find_nvcc(), "--dryrun", "-c", str(source)]
    plan = subprocess.run(command, capture_output=True, text=True).stderr
    lines = re.findall(r"^#\$ (?:SYSTEM_)?INCLUDES=(.*)$", plan, re.MULTILINE)
    words = [word for line in lines for word in shlex.split(line)]
    return [re.sub("^-(I|isystem)", "", word) for word in words if len(word) > len("-isystem")]


def compile_for_host(target: Path, sources: Sequence[Path], *more: str) -> Path:
    """Compile a library in which the kernels run on this machine."""
    if shutil.which(COMPILER) is None:
        pytest.skip(f"no C++ compiler: {COMPILER!r}")
    command = [COMPILER, *FLAGS, *more, *map(str, sources), "-o", str(target)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return target


def compile_entry_for_host(folder: Path) -> Path:
    """The C entry alone: needs neither TensorRT nor CUDA."""
    sources = (PLUGIN / "entry.cpp", HOST / "host_launch.cpp")
    return compile_for_host(folder / "libentry_host.so", sources)


def compile_plugin_for_host(folder: Path) -> Path:
    """The whole plugin, with probe.cpp to call it as TensorRT does."""
    includes = (str(tensorrt_folder() / "include"), *cuda_includes(folder))
    sources = (*sorted(PLUGIN.glob("*.cpp")), *sorted(HOST.glob("*.cpp")))
    more = [word for include in includes for word in ("-isystem", include)]
    return compile_for_host(folder / "libplugin_host.so", sources, *more)


def compile_entry_for_gpu(folder: Path) -> Path:
    """The C entry as it runs on a GPU, by nvcc."""
    csrc = OPERATOR / "src/ops_dcnv3/csrc"
    sources = (PLUGIN / "entry.cpp", csrc / "cuda/device.cpp", csrc / "cuda/forward.cu")
    target = folder / "libentry_gpu.so"
    command = [
        *(find_nvcc(), "-O1", "-std=c++17", "--expt-relaxed-constexpr", "-shared"),
        *("-Xcompiler=-fPIC", "-cudart=static", f"-arch=sm_{ARCHITECTURE}"),
        *(f"-I{csrc}", *map(str, sources), "-o", str(target)),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return target


def configure(folder: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run CMake on the plugin; skips where there is none."""
    if shutil.which("cmake") is None:
        pytest.skip("no cmake")
    nothing = {"TENSORRT_DIR": ""}
    return subprocess.run(
        ["cmake", "-S", str(PLUGIN), "-B", str(folder), *options],
        env=os.environ | nothing | environment,
        capture_output=True,
        text=True,
    )


def build_plugin(folder: Path) -> Path:
    """Build the plugin with CMake and nvcc, as the page says."""
    environment = {"CUDACXX": find_nvcc()}
    options = [f"-DTENSORRT_DIR={tensorrt_folder()}", f"-DCMAKE_CUDA_ARCHITECTURES={ARCHITECTURE}"]
    done = configure(folder, *options, **environment)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    build = subprocess.run(
        ["cmake", "--build", str(folder), "-j", "2"], capture_output=True, text=True
    )
    assert build.returncode == 0, build.stdout[-2000:] + build.stderr[-2000:]
    assert "warning" not in build.stdout + build.stderr
    return folder / "libdcnv3_tensorrt.so"
