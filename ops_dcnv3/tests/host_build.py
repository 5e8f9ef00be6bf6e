"""Compiles the programs and the library that run CUDA kernels on the host; needs no CUDA toolkit.

Three builds of the same sources, each with eyes of its own:

    plain       optimised, for tables of results
    watched     every load and store is checked, see cuda_host/memory_watch.h
    sanitized   AddressSanitizer and UndefinedBehaviorSanitizer
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
SOURCES = TESTS / "cuda_host"
CSRC = TESTS.parent / "src" / "ops_dcnv3" / "csrc"
COMPILER = os.environ.get("CXX", "c++").split()[0]

COMMON = (
    *("-std=c++17", "-g1", "-Wno-unknown-pragmas", "-Wno-psabi"),
    *(f"-I{folder}" for folder in (CSRC, SOURCES, TESTS / "sanitize")),
)
WATCHED = ("-O1", "-DHOST_LANES_WATCH", "-fno-threadsafe-statics")
FLAGS = {
    "plain": ("-O1",),
    # The watching itself is not watched: memory_watch.cpp gets no -fsanitize.
    "watched": (*WATCHED, "-fsanitize=thread"),
    "sanitized": (
        *("-O1", "-fno-omit-frame-pointer", "-fsanitize=address,undefined,float-cast-overflow"),
        "-fno-sanitize-recover=all",
    ),
}


def compile_with(*arguments: str | Path) -> None:
    """Run the compiler, or fail with what it says."""
    done = subprocess.run([COMPILER, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]


def build(
    folder: Path,
    source: str,
    kind: str,
    *,
    library: bool = False,
    extra: Sequence[str] = (),
) -> Path:
    """Compile `cuda_host/<source>.cpp` as a program or a library.

    Args:
        folder: Where the results go.
        source: Name of the source file without its suffix.
        kind: A key of `FLAGS`.
        library: A shared library instead of a program.
        extra: More flags for the compiler.

    Returns:
        The path of the program or library.
    """
    if shutil.which(COMPILER) is None:
        pytest.skip(f"no C++ compiler: {COMPILER!r}")
    position = ("-fPIC",) if library else ()
    objects = [folder / f"{source}-{kind}.o"]
    flags = (*COMMON, *FLAGS[kind], *position, *extra)
    compile_with(*flags, "-c", SOURCES / f"{source}.cpp", "-o", objects[0])
    if kind == "watched":
        objects.append(folder / "memory_watch.o")
        if not objects[1].exists():
            watch = SOURCES / "memory_watch.cpp"
            compile_with(*COMMON, *WATCHED, "-fPIC", "-c", watch, "-o", objects[1])
    result = folder / (f"lib{source}-{kind}.so" if library else f"{source}-{kind}")
    link = ("-fsanitize=address,undefined",) if kind == "sanitized" else ()
    compile_with(*(("-shared",) if library else ()), *link, *objects, "-o", result)
    return result
