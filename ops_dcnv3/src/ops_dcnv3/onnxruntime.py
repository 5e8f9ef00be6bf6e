"""The operator in ONNX Runtime on CPUs: its own kernels behind the nodes that ``onnx.py`` defines.

::

    from ops_dcnv3.onnxruntime import session_options

    session = onnxruntime.InferenceSession("model.onnx", session_options())

The kernels are a library of their own beside the extension for PyTorch. It works on ONNX Runtime's
memory, in the threads of the session and without Python's lock, so that neither copies nor a
second set of threads come in; float32 and float16, which is calculated in float32. Programs without
PyTorch, or without Python, register the file :func:`library_path` themselves.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING

from .extension import LEVEL_ENV, REBUILD

if TYPE_CHECKING:
    from onnxruntime import SessionOptions

INSTALL = "`pip install onnxruntime`"


def library_path() -> Path:
    """Returns the file that ``SessionOptions.register_custom_ops_library`` takes.

    Raises:
        ImportError: If the package was installed without its compiled kernels.
    """
    spec = importlib.util.find_spec("ops_dcnv3._onnxruntime")
    if spec is None or spec.origin is None:
        raise ImportError(
            "ops_dcnv3: expected a library for ONNX Runtime, but the package was installed without "
            f"its compiled kernels. To build it: {REBUILD}"
        )
    return Path(spec.origin)


def register(options: SessionOptions) -> SessionOptions:
    """Makes sessions know the nodes ``dcnv3::DCNv3`` and ``dcnv3::DCNv3Packed``.

    Args:
        options: that have not been registered yet.

    Returns:
        ``options``.

    Raises:
        ImportError: If the package was installed without its compiled kernels.
        ValueError: If ``OPS_DCNV3_CPU_LEVEL`` names an instruction set that the build or CPU lacks.
    """
    path = str(library_path())
    if level := os.environ.get(LEVEL_ENV, "").lower():
        library = ctypes.CDLL(path)  # the one that ONNX Runtime is about to open
        if library.ops_dcnv3_set_cpu_level(level.encode()):
            raise ValueError(f"ops_dcnv3: expected {LEVEL_ENV} to fit this CPU, got {level!r}")
    options.register_custom_ops_library(path)
    return options


def session_options(*, num_threads: int | None = None) -> SessionOptions:
    """Returns options for a session that knows the operator.

    Args:
        num_threads: of the session, all of its operators together; None: one a physical core.

    Raises:
        ImportError: If ONNX Runtime, or the compiled part of this package, is not installed.
        TypeError: If ``num_threads`` is not an int.
        ValueError: If ``num_threads`` is below 1.
    """
    if num_threads is not None:
        if not isinstance(num_threads, int) or isinstance(num_threads, bool):
            raise TypeError(f"session_options: expected num_threads = an int, got {num_threads!r}")
        if num_threads < 1:
            raise ValueError(f"session_options: expected num_threads >= 1, got {num_threads}")
    try:
        from onnxruntime import SessionOptions
    except ImportError as error:
        raise ImportError(
            f"ops_dcnv3: ONNX Runtime, which runs exported models, is not installed: {INSTALL}"
        ) from error
    options = SessionOptions()
    if num_threads is not None:
        options.intra_op_num_threads = num_threads
    return register(options)
