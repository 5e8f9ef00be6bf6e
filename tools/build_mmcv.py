"""Builds the wheel of onedl-mmcv with its operators, once for each PyTorch; prints its path.

    python tools/build_mmcv.py
    pip install "$(python tools/build_mmcv.py)"

The package comes as sources alone, compiles for 5-10 minutes on two cores, and has to be compiled
against the PyTorch that will load it. Installed without ``--no-build-isolation`` it does not see
that PyTorch, and installs **without operators and without an error**. So this builds it inside the
running environment, looks for the operators in what came out, and keeps it in a cache outside of
the checkout: ``$XDG_CACHE_HOME/internimage/wheels`` (``~/.cache/...``), one folder for each version
of onedl-mmcv, PyTorch, Python, CUDA and platform. The cache may be deleted at any time.

With a GPU in sight, or FORCE_CUDA=1, the operators for CUDA are built as well, which needs nvcc.
MAX_JOBS says how many compilers run at once.
"""

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.command_line import run_tool

PINS = Path(__file__).resolve().parents[1] / "requirements" / "openmmlab.txt"
PACKAGE = "onedl-mmcv"
OPERATORS = re.compile(r"^mmcv/_ext[^/]*\.(so|pyd)$")
BUILD_TOOLS = ("setuptools", "wheel", "ninja", "packaging", "psutil")
SHOWN_LINES = 15
STANDARD = "-std=c++17"  # onedl-mmcv's
HEADER = "torch/types.h"  # what its files include: 8 of the 13 seconds of each


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Builds the wheel of onedl-mmcv; prints its path.")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="folder of wheels")
    parser.add_argument("--rebuild", action="store_true", help="whatever the cache holds")
    options = parser.parse_args(arguments)

    def build() -> None:
        version = pinned_version()
        folder = options.cache / cache_key(version)
        wheel = None if options.rebuild else find_wheel(folder)
        print(wheel or build_wheel(version, folder))

    return run_tool("build_mmcv", build)


def default_cache() -> Path:
    """Return the folder of wheels in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "internimage/wheels"


def pinned_version() -> str:
    """Return the version that the tests run with.

    Raises:
        ValueError: the list of versions has none.
    """
    found = re.search(rf"^{PACKAGE}==(\S+)", PINS.read_text(encoding="utf-8"), flags=re.MULTILINE)
    if found is None:
        raise ValueError(f"expected a line {PACKAGE}==VERSION in {PINS}, got none")
    return found[1]


def cache_key(version: str) -> str:
    """Return a folder's name that says everything that the compiled operators depend on."""
    with_cuda = torch.cuda.is_available() or os.environ.get("FORCE_CUDA") == "1"
    cuda = f"cuda{torch.version.cuda}" if with_cuda else "cpu"
    architectures = os.environ.get("TORCH_CUDA_ARCH_LIST", "") if with_cuda else ""
    parts = (
        f"mmcv{version}",
        f"torch{torch.__version__}",
        f"cp{sys.version_info.major}{sys.version_info.minor}",
        sysconfig.get_platform(),
        cuda,
        *architectures.replace(";", " ").split(),
    )
    return re.sub(r"[^A-Za-z0-9.+_-]", "_", "-".join(parts))


def find_wheel(folder: Path) -> Path | None:
    """Return the wheel in a folder of the cache if it is whole and has operators."""
    return next((wheel for wheel in sorted(folder.glob("*.whl")) if has_operators(wheel)), None)


def has_operators(wheel: Path) -> bool:
    """Whether a wheel is whole and holds compiled operators."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
            return any(map(OPERATORS.match, names)) and archive.testzip() is None
    except zipfile.BadZipFile:
        return False


def build_wheel(version: str, folder: Path) -> Path:
    """Compile the wheel and put it into the cache, whole or not at all; return its path.

    Raises:
        ValueError: the compiler is missing or the build fails; the message has pip's last lines.
    """
    compiler = os.environ.get("CXX", "c++").split()[0]
    if shutil.which(compiler) is None:
        raise ValueError(
            f"expected a C++ compiler, got none named {compiler}; on Debian: apt-get install g++"
        )
    print(f"compiling {PACKAGE} {version}: 5-10 minutes on two cores, once", file=sys.stderr)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".building-") as scratch:
        # --no-cache-dir: pip's own cache would hand out a wheel for another PyTorch.
        command = (
            *(sys.executable, "-m", "pip", "wheel", "--disable-pip-version-check", "--no-input"),
            *("--no-build-isolation", "--no-deps", "--no-cache-dir", "--no-binary", PACKAGE),
            *("--wheel-dir", scratch, f"{PACKAGE}=={version}"),
        )
        process = subprocess.run(
            command,
            env=os.environ | precompile(HEADER, Path(scratch)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        wheels = list(Path(scratch).glob("*.whl"))
        if process.returncode or not wheels:
            last = "\n".join(process.stdout.splitlines()[-SHOWN_LINES:])
            raise ValueError(
                f"expected {PACKAGE} {version} to build (it needs {', '.join(BUILD_TOOLS)} in this "
                f"environment), got\n{last}"
            )
        if not has_operators(wheels[0]):
            raise ValueError(f"expected compiled operators in {wheels[0].name}, got none")
        folder.mkdir(exist_ok=True)
        return wheels[0].replace(folder / wheels[0].name)


def precompile(header: str, folder: Path) -> dict[str, str]:
    """Let all files of a build that follows take a header from a precompiled one.

    GCC reads the header itself again where a file's flags are others than here: then the build
    takes its time, and is as right.

    Args:
        header: As in an ``#include``, of PyTorch or of the standard library.
        folder: For the precompiled header (400 MB of ``torch/types.h``), until the build has ended.

    Returns:
        Variables for the environment of the build; none where the compiler is another one, the
        header cannot be precompiled, or somebody has set CFLAGS.
    """
    if "CFLAGS" in os.environ:
        return {}
    command = shlex.split(os.environ.get("CXX", "c++"))
    version = subprocess.run([*command, "--version"], capture_output=True, text=True)
    if "Free Software Foundation" not in version.stdout:  # not GCC
        return {}
    # Python's own, as setuptools would take them, without the symbols for a debugger.
    flags = shlex.split(sysconfig.get_config_var("CFLAGS") or "-O3")
    flags = [flag for flag in flags if not re.fullmatch(r"-g\d?", flag)]
    source = folder / "precompiled.hpp"
    source.write_text(f"#include <{header}>\n", encoding="utf-8")
    include = Path(torch.__file__).parent / "include"
    places = [f"-I{include}", f"-I{include / 'torch/csrc/api/include'}"]
    made = subprocess.run(
        [*command, *flags, "-fPIC", STANDARD, *places, "-w", "-x", "c++-header", str(source)],
        capture_output=True,
    )
    return {} if made.returncode else {"CFLAGS": shlex.join([*flags, "-include", str(source)])}


if __name__ == "__main__":
    sys.exit(main())
