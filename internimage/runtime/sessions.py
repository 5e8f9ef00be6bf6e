"""An exported file in a runtime: a function from arrays to arrays."""

from __future__ import annotations

import importlib
import importlib.util
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from internimage.runtime.metadata import Metadata

Backend = Literal["onnxruntime", "openvino"]
BACKENDS: tuple[Backend, ...] = ("onnxruntime", "openvino")

MOST_THREADS = 256
"""Or as many as the machine has cores: each has a stack, and thousands of them take minutes."""

Arrays = Mapping[str, np.ndarray]

Run = Callable[[Arrays], Arrays]
"""From the inputs of a model to its outputs, both by name."""


def open_session(
    path: Path,
    metadata: Metadata,
    *,
    backend: Backend = "onnxruntime",
    threads: int | None = None,
    library: Path | None = None,
) -> Run:
    """Load an exported file into a runtime.

    Args:
        path: the file.
        metadata: what it says of itself.
        backend: the runtime.
        threads: of one run; None is the runtime's own choice.
        library: with the operator of files that have it as a node; None takes the one of an
            installed ``ops_dcnv3``; for other files it has no effect, and a warning says so.

    Raises:
        ImportError: the runtime is not installed.
        FileNotFoundError: there is no such library.
        ValueError: the runtime cannot load the file, or the library; ``threads`` is out of range.
    """
    if backend not in BACKENDS:
        raise ValueError(
            f"open_session: expected backend in {{{', '.join(BACKENDS)}}}, got {backend!r}"
        )
    most = max(MOST_THREADS, os.cpu_count() or 1)
    if threads is not None and not 1 <= threads <= most:
        raise ValueError(f"open_session: expected threads from 1 to {most}, got {threads}")
    if library is not None and not library.is_file():
        raise FileNotFoundError(f"open_session: expected a library, got no file at {library}")
    if metadata.operator != "node" and library is not None:
        warnings.warn(
            f"open_session: library = {library} has no effect on {path}, which was exported with "
            f"--operator {metadata.operator}",
            stacklevel=2,
        )
        library = None
    if backend == "openvino":
        if metadata.operator == "node":
            raise ValueError(
                "open_session: expected a file exported with --operator grid_sample for OpenVINO, "
                f"for which there is no library of the operator, got {path}, which holds it as a "
                "node"
            )
        return _open_openvino(path, threads)
    if metadata.operator == "node" and library is None:
        library = _installed_library()
        if library is None:
            raise ValueError(
                f"open_session: expected the library with the operator of {path}, which holds it "
                "as a node; give --library FILE, install ops_dcnv3 (`pip install ./ops_dcnv3`), or "
                "export with --operator grid_sample"
            )
    return _open_onnxruntime(path, threads, library)


def with_unknown(inputs: Arrays, declared: Mapping[str, Sequence[Any]]) -> dict[str, np.ndarray]:
    """Return inputs with zeros, float32, for those that nobody gives.

    Of a model with the MetaFormer head these are the time and the place of a picture: zeros mean
    that they are unknown.

    Args:
        inputs: those that are given, ``input`` among them.
        declared: the shapes of all that the model has; the first axis is the batch.
    """
    count = len(inputs["input"])
    missing = {name: shape for name, shape in declared.items() if name not in inputs}
    zeros = {name: np.zeros((count, *shape[1:]), np.float32) for name, shape in missing.items()}
    return {**inputs, **zeros}


def _installed_library() -> Path | None:
    """Return the operator's library for ONNX Runtime beside an installed ``ops_dcnv3``, if any."""
    found = importlib.util.find_spec("ops_dcnv3")  # imports nothing, PyTorch least of all
    # No origin: a folder of that name on the path, such as the checkout's, is an empty namespace.
    if found is None or found.origin is None:
        return None
    libraries = sorted(Path(found.origin).parent.glob("_onnxruntime*.so"))
    return libraries[0] if libraries else None


def _open_onnxruntime(path: Path, threads: int | None, library: Path | None) -> Run:
    runtime: Any = _import("onnxruntime", "onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # fatal ones: errors are raised
    if threads is not None:
        options.intra_op_num_threads = threads
    if library is not None:
        try:
            # Resolved: the linker looks for a bare name elsewhere than in the current folder.
            options.register_custom_ops_library(str(library.resolve()))
        except Exception as error:
            raise ValueError(
                "open_session: expected a library with the operator that ONNX Runtime can load, "
                f"got {library} ({line_of(error)})"
            ) from error
    try:
        # onnxruntime-gpu asks for a name here, and this runner is one for CPUs.
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # each of ONNX Runtime's codes is a class of its own
        raise _cannot_load(path, "ONNX Runtime", error) from error
    names = [output.name for output in session.get_outputs()]
    declared = {one.name: tuple(one.shape) for one in session.get_inputs()}

    def run(inputs: Arrays) -> Arrays:
        try:
            given = with_unknown(inputs, declared)
            return dict(zip(names, session.run(names, given), strict=True))
        except Exception as error:
            raise _cannot_run(path, inputs, error) from error

    return run


def _open_openvino(path: Path, threads: int | None) -> Run:
    runtime: Any = _import("openvino", "openvino")
    # The CPU's plugin would compute in bfloat16 where it can.
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    try:
        compiled = runtime.Core().compile_model(str(path), "CPU", settings)
    except Exception as error:
        raise _cannot_load(path, "OpenVINO", error) from error

    shapes = [
        (one.get_names(), [side.get_max_length() for side in one.partial_shape])
        for one in compiled.inputs
    ]

    def run(inputs: Arrays) -> Arrays:
        # A tensor may have several names there, as the output of a half model behind its cast: the
        # one that is given is meant, which only a run knows.
        declared = {
            min(names, key=lambda name: (name not in inputs, name)): shape
            for names, shape in shapes
        }
        try:
            found = compiled(with_unknown(inputs, declared))
            # Copies already, which the next run does not write into.
            return {
                name: found[output] for output in compiled.outputs for name in output.get_names()
            }
        except Exception as error:
            raise _cannot_run(path, inputs, error) from error

    return run


def _import(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"open_session: expected {module}, which runs exported models, got none ({error}); "
            f"`pip install {package}`"
        ) from error


def _cannot_load(path: Path, name: str, error: Exception) -> ValueError:
    return ValueError(
        f"open_session: expected a model that {name} can load, got {path} ({line_of(error)})"
    )


def _cannot_run(path: Path, inputs: Arrays, error: Exception) -> ValueError:
    shapes = ", ".join(f"{name} {tuple(array.shape)}" for name, array in inputs.items())
    return ValueError(f"run: expected inputs that {path} takes, got {shapes} ({line_of(error)})")


def line_of(error: Exception) -> str:
    """Return what a runtime says as one line; of a long one the beginning and the end."""
    line = " ".join(str(error).split()) or type(error).__name__
    # The names of C++ stand before the reason.
    return line if len(line) <= 400 else f"{line[:100]} ... {line[-300:]}"
