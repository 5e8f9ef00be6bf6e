"""The registered operators on the PyTorch reference, for devices without kernels.

Each function has the arguments of the operator in ``ops.py`` that bears its name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import reference
from .reference import Geometry


def dcnv3(input: Tensor, offset: Tensor, mask: Tensor, *static: Any) -> Tensor:
    """The output, (N, Ho, Wo, C)."""
    *geometry, softmax = static
    return reference.forward(input, offset, mask, Geometry(*geometry), softmax)


def dcnv3_backward(
    grad_output: Tensor, input: Tensor, offset: Tensor, mask: Tensor, *static: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of input, offsets and weights."""
    *geometry, softmax, _ = static  # PyTorch's operations heed its deterministic mode themselves
    return reference.backward(grad_output, input, offset, mask, Geometry(*geometry), softmax)


def dcnv3_packed(input: Tensor, offset_mask: Tensor, *static: Any) -> Tensor:
    """The output, (N, Ho, Wo, C)."""
    return dcnv3(input, *Geometry(*static[:-1]).split(offset_mask), *static)


def dcnv3_packed_backward(
    grad_output: Tensor, input: Tensor, offset_mask: Tensor, *static: Any
) -> tuple[Tensor, Tensor]:
    """The gradients of input and packed tensor; that of the padding is zero."""
    parts = Geometry(*static[:-2]).split(offset_mask)
    grad_input, grad_offset, grad_mask = dcnv3_backward(grad_output, input, *parts, *static)
    padding = offset_mask.shape[3] - grad_offset.shape[3] - grad_mask.shape[3]
    zeros = grad_mask.new_zeros((*grad_mask.shape[:3], padding))
    return grad_input, torch.cat([grad_offset, grad_mask, zeros], dim=-1)


OPERATORS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (dcnv3, dcnv3_backward, dcnv3_packed, dcnv3_packed_backward)
}
"""From the name of a registered operator to the function that runs it."""
