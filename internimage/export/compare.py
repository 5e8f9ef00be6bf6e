"""An exported file run in ONNX Runtime beside the model that it came from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from internimage.export.report import Difference
from internimage.runtime.sessions import line_of

Compare = Callable[[list[Tensor], list[np.ndarray]], Difference]
"""Turns the outputs of PyTorch and of ONNX Runtime into one difference."""


def open_session(path: Path, *, with_own_node: bool) -> Any:
    """Return an ``onnxruntime.InferenceSession`` on the CPU.

    Args:
        path: the file.
        with_own_node: whether it holds the node that the operator's custom library runs.

    Raises:
        ValueError: ONNX Runtime refuses the file.
    """
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3  # errors: warnings are about its own optimisations
    # OMP_NUM_THREADS limits PyTorch's number; ONNX Runtime would take every core.
    settings.intra_op_num_threads = torch.get_num_threads()
    if with_own_node:
        from ops_dcnv3 import onnxruntime as custom

        custom.register(settings)
    try:
        return onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    except Exception as error:  # each of ONNX Runtime's codes is a class of its own
        raise ValueError(
            f"export_onnx: expected a file that ONNX Runtime takes, got {line_of(error)}"
        ) from error


def difference(
    reference: nn.Module,
    session: Any,
    inputs: Mapping[str, Tensor],
    compare: Compare | None,
) -> Difference:
    """Run both and return how far apart their outputs are.

    Args:
        reference: the model, in evaluation mode.
        session: of its file.
        inputs: by name, in the order of the model's arguments.
        compare: None is :func:`relative_difference`.

    Raises:
        ValueError: ONNX Runtime cannot run the file on these inputs.
    """
    with torch.inference_mode():
        expected = reference(*inputs.values())
    expected = [expected] if isinstance(expected, Tensor) else list(expected)
    # What the model does not read is no input of its file.
    taken = {value.name for value in session.get_inputs()}
    feed = {name: tensor.numpy() for name, tensor in inputs.items() if name in taken}
    try:
        got = session.run(None, feed)
    except Exception as error:
        shapes = {name: tensor.shape for name, tensor in feed.items()}
        raise ValueError(
            f"export_onnx: expected a file that runs on inputs {shapes}, got {line_of(error)}"
        ) from error
    return (compare or relative_difference)(expected, got)


def relative_difference(expected: Sequence[Tensor], got: Sequence[np.ndarray]) -> Difference:
    """Return the largest difference over the largest value, the worst of all outputs.

    Infinite where shapes differ or a number is not finite.
    """
    worst = float("inf")
    if len(expected) == len(got):
        worst = max(_relative(a.numpy(), b) for a, b in zip(expected, got, strict=True))
    return Difference(worst, "of the largest value")


def _relative(expected: np.ndarray, got: np.ndarray) -> float:
    if expected.shape != got.shape:
        return float("inf")
    if expected.size == 0:
        return 0.0
    a, b = expected.astype(np.float64), got.astype(np.float64)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return float("inf")
    apart = np.abs(a - b).max()
    # Outputs that are zero in both are equal, not 0 / 0.
    return float(apart / np.abs(a).max()) if apart else 0.0
