"""Loading of the compiled kernels, and the report of what was loaded and why."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import warnings
from functools import cache
from typing import Any

from ._version import INTERFACE, __version__

BACKEND_ENV = "OPS_DCNV3_BACKEND"
LEVEL_ENV = "OPS_DCNV3_CPU_LEVEL"
_BACKENDS = ("auto", "native", "reference")
_LEVELS = ("baseline", "v2", "v3", "v4")
_REBUILD = (
    "`make setup`, or from a checkout `pip install --force-reinstall --no-deps "
    "--no-build-isolation ./ops_dcnv3`, with gcc >= 11 or clang >= 12"
)


class _State:
    """What :func:`load` found; filled once, on import."""

    library: ctypes.CDLL | None = None
    path: str | None = None
    reason: str = ""  # why there is no native backend, empty when there is one


def load() -> None:
    """Loads the extension as the environment asks; called once, by ``ops_dcnv3/__init__.py``.

    Raises:
        ValueError: If ``OPS_DCNV3_BACKEND`` is none of auto, native, reference, or
            ``OPS_DCNV3_CPU_LEVEL`` names an instruction set that this build or CPU lacks.
        ImportError: If the native backend is forced and cannot be loaded, or the extension was
            built for another interface.
    """
    backend = os.environ.get(BACKEND_ENV, "").lower() or "auto"
    if backend not in _BACKENDS:
        raise ValueError(f"ops_dcnv3: expected {BACKEND_ENV} in {_BACKENDS}, got {backend!r}")
    level = os.environ.get(LEVEL_ENV, "").lower()
    if level and level not in _LEVELS:
        raise ValueError(f"ops_dcnv3: expected {LEVEL_ENV} in {_LEVELS}, got {level!r}")
    if backend == "reference":
        _State.reason = f"{BACKEND_ENV}=reference"
    else:
        _open_extension()
    if _State.library is not None:
        if level:
            set_cpu_level(level)
        return
    if backend == "native":
        raise ImportError(
            f"ops_dcnv3: {BACKEND_ENV}=native, but {_State.reason}. To build it: {_REBUILD}"
        )
    if level:
        _warn(f"{LEVEL_ENV}={level} has no effect: {_State.reason}")
    if backend == "auto":
        _warn(
            f"{_State.reason}; using the PyTorch reference, which is right but many times slower. "
            f"To build it: {_REBUILD}"
        )


def _warn(message: str) -> None:
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
            f"{spec.origin}. To build it anew: {_REBUILD}"
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


def extension_info() -> dict[str, Any]:
    """Describes what this installation runs, for bug reports and tests.

    Returns:
        A dict with ``version``; ``backends``, best first, of ``"cpu"`` (the compiled CPU kernels)
        and ``"reference"`` (plain PyTorch, always there); ``cpu_level`` and ``cpu_levels`` (the
        instruction set in use and those to choose from); ``path`` of the extension; ``missing``, a
        dict from an absent backend to the reason.
    """
    library = _State.library
    missing = {"cuda": "this version has no CUDA kernels: CUDA tensors take the PyTorch reference"}
    if library is None:
        missing["cpu"] = _State.reason
    return {
        "version": __version__,
        "backends": ("reference",) if library is None else ("cpu", "reference"),
        "cpu_level": None if library is None else library.ops_dcnv3_cpu_level().decode(),
        "cpu_levels": cpu_levels(),
        "path": _State.path,
        "missing": missing,
    }


@cache
def warn_slow_device(device_type: str) -> None:
    """Says once for each device type that it has no kernels of its own."""
    if device_type not in ("cpu", "meta"):
        _warn(
            f"no {device_type} kernels in this version; using the PyTorch reference, which is "
            "right but many times slower"
        )
