"""Says in one line what a wheel of ops_dcnv3 holds: its size, its CPU levels, its architectures.

python ops_dcnv3/describe_wheel.py ops_dcnv3/dist/*.whl
"""

from __future__ import annotations

import ctypes
import sys
import tempfile
import zipfile
from pathlib import Path


def describe(wheel: Path) -> str:
    """Returns the line, from what the library in the wheel says of itself."""
    import torch  # noqa: F401  # the libraries that the extension is linked to

    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory() as folder:
        size = f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB"
        if "ops_dcnv3/_C.abi3.so" not in archive.namelist():
            return f"{size}, no compiled kernels"
        library = ctypes.CDLL(archive.extract("ops_dcnv3/_C.abi3.so", folder))
        levels = text(library, "ops_dcnv3_cpu_levels")
        archs = text(library, "ops_dcnv3_cuda_archs")
        cuda = f"CUDA kernels for {archs}" if archs else "no CUDA kernels"
        return f"{size}, CPU kernels that run here: {levels}, {cuda}"


def text(library: ctypes.CDLL, name: str) -> str:
    """Returns what a C entry says; nothing where the library does not have it."""
    if not hasattr(library, name):
        return ""
    entry = getattr(library, name)
    entry.restype = ctypes.c_char_p
    return entry().decode()


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(describe(Path(name)))
