"""Loading of the compiled kernels through ctypes, and what they tell of themselves."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import warnings
from typing import NamedTuple

from ._version import INTERFACE

BACKEND_ENV = "OPS_DCNV3_BACKEND"
LEVEL_ENV = "OPS_DCNV3_CPU_LEVEL"
_BACKENDS = ("auto", "native", "triton", "reference")
_LEVELS = ("baseline", "v2", "v3", "v4")
REBUILD = (
    "`make setup`, or from a checkout `pip install --force-reinstall --no-deps "
    "--no-build-isolation ./ops_dcnv3`, with gcc >= 11 or clang >= 12"
)

INSTALL_TRITON = "`pip install triton`"

Capability = tuple[int, int]
"""Compute capability of a CUDA device, (major, minor)."""


class CudaKernels(NamedTuple):
    """What the CUDA kernels are and find here; see ``backends.why_not_compiled``."""

    archs: tuple[str, ...]
    runtime: int
    driver: int


class _State:
    """What :func:`load` found; filled once, on import."""

    backend: str = "auto"
    library: ctypes.CDLL | None = None
    path: str | None = None
    reason: str = ""  # why there is no native backend, empty when there is one


def load() -> None:
    """Loads the extension as the environment asks; called once, by ``ops_dcnv3/__init__.py``.

    Raises:
        ValueError: If ``OPS_DCNV3_BACKEND`` is none of auto, native, triton, reference, or
            ``OPS_DCNV3_CPU_LEVEL`` names an instruction set that this build or CPU lacks.
        ImportError: If the native backend or Triton is forced and not there, or the extension was
            built for another interface.
    """
    backend = os.environ.get(BACKEND_ENV, "").lower() or "auto"
    if backend not in _BACKENDS:
        raise ValueError(f"ops_dcnv3: expected {BACKEND_ENV} in {_BACKENDS}, got {backend!r}")
    level = os.environ.get(LEVEL_ENV, "").lower()
    if level and level not in _LEVELS:
        raise ValueError(f"ops_dcnv3: expected {LEVEL_ENV} in {_LEVELS}, got {level!r}")
    _State.backend = backend
    if backend == "triton" and importlib.util.find_spec("triton") is None:
        raise ImportError(
            f"ops_dcnv3: {BACKEND_ENV}=triton, but Triton, which compiles kernels at run time, is "
            f"not installed: {INSTALL_TRITON}"
        )
    if backend == "reference":
        _State.reason = f"{BACKEND_ENV}=reference"
    elif is_interpreting_triton():
        _State.reason = f"{BACKEND_ENV}=triton with TRITON_INTERPRET=1 serves CPU tensors too"
    else:
        _open_extension()
    if _State.library is not None:
        if level:
            set_cpu_level(level)
        return
    if backend == "native":
        raise ImportError(
            f"ops_dcnv3: {BACKEND_ENV}=native, but {_State.reason}. To build it: {REBUILD}"
        )
    if level:
        warn(f"{LEVEL_ENV}={level} has no effect: {_State.reason}")
    if backend in ("auto", "triton") and not is_interpreting_triton():
        warn(
            f"{_State.reason}; CPU tensors take the PyTorch reference, which is right but many "
            f"times slower. To build it: {REBUILD}"
        )


def warn(message: str) -> None:
    """Warns in the name of the package."""
    warnings.warn(f"ops_dcnv3: {message}", RuntimeWarning, stacklevel=4)


def _open_extension() -> None:
    """Fills the state with the extension, or with the reason why there is none."""
    spec = importlib.util.find_spec("ops_dcnv3._C")
    if spec is None or spec.origin is None:
        _State.reason = "the package was installed without its compiled extension"
        return
    try:
        library = ctypes.CDLL(spec.origin)  # registers its kernels
    except OSError as error:
        _State.reason = f"the compiled extension does not load: {error}"
        return
    found = library.ops_dcnv3_interface() if hasattr(library, "ops_dcnv3_interface") else None
    if found != INTERFACE:
        # its kernels are registered by now and would be called with wrong arguments
        raise ImportError(
            f"ops_dcnv3: expected a compiled extension with interface {INTERFACE}, got {found} in "
            f"{spec.origin}. To build it anew: {REBUILD}"
        )
    library.ops_dcnv3_cpu_levels.restype = ctypes.c_char_p
    library.ops_dcnv3_cpu_level.restype = ctypes.c_char_p
    library.ops_dcnv3_set_cpu_level.argtypes = [ctypes.c_char_p]
    _State.library, _State.path = library, spec.origin


def cpu_levels() -> tuple[str, ...]:
    """Returns the instruction-set levels that this build and this CPU both have, lowest first."""
    if _State.library is None:
        return ()
    return tuple(_State.library.ops_dcnv3_cpu_levels().decode().split())


def set_cpu_level(level: str) -> None:
    """Chooses the CPU kernels' instruction set for this process.

    Args:
        level: ``"v2"`` (baseline), ``"v3"`` (AVX2) or ``"v4"`` (AVX-512).

    Raises:
        ValueError: If this build or this CPU does not have ``level``.
    """
    if level not in cpu_levels():
        raise ValueError(f"ops_dcnv3: expected {LEVEL_ENV} in {cpu_levels()}, got {level!r}")
    assert _State.library is not None
    _State.library.ops_dcnv3_set_cpu_level(level.encode())


def cpu_level() -> str | None:
    """Returns the instruction-set level in use; None without compiled kernels."""
    return None if _State.library is None else _State.library.ops_dcnv3_cpu_level().decode()


def path() -> str | None:
    """Returns the file of the extension that was loaded."""
    return _State.path


def why_not_loaded() -> str:
    """Returns the reason why there are no compiled kernels; empty if there are."""
    return _State.reason


def requested_backend() -> str:
    """Returns what ``OPS_DCNV3_BACKEND`` asked for on import: auto, native, triton or reference."""
    return _State.backend


def is_interpreting_triton() -> bool:
    """Whether Triton's interpreter was asked for: it runs its kernels on CPU tensors, for tests."""
    return _State.backend == "triton" and os.environ.get("TRITON_INTERPRET") == "1"


def cuda_kernels() -> CudaKernels | str:
    """Returns what the CUDA kernels ask for, or the reason why there are none."""
    library = _State.library
    if library is None:
        return _State.reason
    if not hasattr(library, "ops_dcnv3_cuda_archs"):
        return f"the extension was built without CUDA kernels; to build it with nvcc: {REBUILD}"
    library.ops_dcnv3_cuda_archs.restype = ctypes.c_char_p
    return CudaKernels(
        tuple(library.ops_dcnv3_cuda_archs().decode().split()),
        library.ops_dcnv3_cuda_runtime_version(),
        library.ops_dcnv3_cuda_driver_version(),
    )


def has_nvidia_driver() -> bool:
    """Whether there is a driver for NVIDIA's GPUs; does not initialise it."""
    try:
        ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return False
    return True


def register_cuda() -> str:
    """Registers the CUDA kernels with PyTorch; returns the reason if that fails, else nothing."""
    assert _State.library is not None
    code = _State.library.ops_dcnv3_register_cuda()
    return f"the CUDA kernels could not be registered (code {code})" if code else ""
