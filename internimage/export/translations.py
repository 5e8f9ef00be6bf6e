"""How PyTorch's operators are written in ONNX where its own exporter does worse or not at all."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from internimage.export.options import Operator
from ops_dcnv3.onnx import translation_table as dcnv3_translations


def build_translations(operator: Operator) -> dict[Any, Callable[..., Any]]:
    """Return the translations of a whole model, for ``torch.onnx.export``.

    Args:
        operator: how DCNv3 is written.

    Raises:
        ImportError: onnx or onnxscript is not installed.
    """
    return {torch.ops.aten.gelu.default: _gelu, **dcnv3_translations(operator)}


def _gelu(x: Any, approximate: str = "none") -> Any:
    """GELU in the order of operations that ONNX Runtime and OpenVINO know for one.

    ``x * (0.5 * (1 + erf))``, as PyTorch's exporter has it, is five passes over the memory in ONNX
    Runtime; ``(x * (1 + erf)) * 0.5`` is one.
    """
    from onnxscript import opset18 as op

    def number(value: float) -> Any:
        # Of the type of x, which is float16 in a half model: ONNX's operators do not mix types.
        constant: Any = op.Constant(value_float=value)
        return op.CastLike(constant, x)

    if approximate == "tanh":
        # The constants are those of arXiv:1606.08415, section 2.
        cubed = op.Mul(op.Mul(x, x), x)
        inner = op.Mul(op.Add(op.Mul(cubed, number(0.044715)), x), number(math.sqrt(2 / math.pi)))
        shape = op.Tanh(inner)
    else:
        shape = op.Erf(op.Div(x, number(math.sqrt(2))))
    return op.Mul(op.Mul(x, op.Add(shape, number(1.0))), number(0.5))
