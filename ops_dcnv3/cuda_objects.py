"""Compiles csrc/cuda/*.cu, each once for all architectures, and keeps the objects.

An object takes minutes to compile and changes rarely. Its name holds a hash of all that goes into
it, so that it is taken again by any build until its source, one of its headers, an option or a
compiler changes.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cuda_toolkit import NVCC_FLAGS, Toolkit, code_options, output_of

COMPRESSION = ("-Xfatbin=-compress-all",)
KEPT = 4  # objects of one source: with two lists of architectures, before and after a change


def compile_all(toolkit: Toolkit, sources: list[Path], folder: Path, jobs: int) -> list[str]:
    """Compiles sources with at most ``jobs`` compilers at a time.

    Args:
        toolkit: Compiles them.
        sources: ``.cu`` files.
        folder: Keeps the objects.
        jobs: Shared out over the sources, and what is left over the architectures of each.

    Returns:
        The paths of the objects.

    Raises:
        RuntimeError: If nvcc fails. It has compiled the trial, so the sources are wrong.
    """
    workers = max(1, min(jobs, len(sources)))
    threads = max(1, jobs // workers)
    with ThreadPoolExecutor(workers) as pool:
        tasks = [pool.submit(compile_one, toolkit, path, folder, threads) for path in sources]
        return [str(task.result()) for task in tasks]


def compile_one(toolkit: Toolkit, source: Path, folder: Path, threads: int) -> Path:
    """Compiles one source, or finds its object in ``folder``; arguments as above."""
    options = [*NVCC_FLAGS, *COMPRESSION, *toolkit.host_options, *code_options(toolkit.archs)]
    target = folder / f"{source.stem}-{hash_of_inputs(toolkit, source, options)}.o"
    if target.exists():
        target.touch()
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as unfinished:
        result = str(Path(unfinished) / "object.o")
        command = [toolkit.nvcc, *options, f"--threads={threads}"]
        command += ["-c", str(source), "-o", result]
        print(shlex.join(command), flush=True)
        if subprocess.run(command).returncode:
            raise RuntimeError(f"ops_dcnv3: nvcc failed on {source}; its messages are above")
        os.replace(result, target)
    objects = sorted(folder.glob(f"{source.stem}-*.o"), key=lambda path: path.stat().st_mtime)
    for old in objects[:-KEPT]:
        old.unlink(missing_ok=True)
    return target


def hash_of_inputs(toolkit: Toolkit, source: Path, options: list[str]) -> str:
    """Returns a name for the versions of both compilers, the options and all that is included."""
    host = (toolkit.host_options or ("", "c++"))[1]
    inputs = [toolkit.version, os.environ.get("NVCC_CCBIN", ""), *options]
    inputs += [output_of([host, "--version"])]
    inputs += [path.read_text() for path in with_headers(source)]
    return hashlib.sha256("\0".join(inputs).encode()).hexdigest()[:20]


def with_headers(source: Path) -> list[Path]:
    """Returns the source and every file that it includes by a quoted name, directly or not.

    Raises:
        ValueError: If such a name does not lead to a file from the one that includes it.
    """
    files: list[Path] = []
    waiting = [source.resolve()]
    while waiting:
        path = waiting.pop()
        if path in files:
            continue
        files.append(path)
        for name in re.findall(r'^\s*#\s*include\s+"([^"]+)"', path.read_text(), re.MULTILINE):
            header = (path.parent / name).resolve()
            if not header.exists():
                raise ValueError(f'ops_dcnv3: expected a file "{name}" beside {path}, got none')
            waiting.append(header)
    return sorted(files)
