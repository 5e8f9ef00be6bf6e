"""Adaptive pooling in operators that every ONNX runtime has, exact at any size.

ONNX has no adaptive pooling: exporters replace it by windows of one size, which are the same only
where the sides divide.

Shape legend: N batch, C channels, H W of the map, S side of the pooled map.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class MatrixPool(nn.Module):
    """The means that ``nn.AdaptiveAvgPool2d`` takes, as two products of matrices.

    Args:
        size: height and width of the pooled map.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """Return the pooled maps (N, C, S, S) of maps (N, C, H, W), computed in float32."""
        height, width = x.shape[2:]
        rows = pooling_matrix(height, self.size[0])  # (S, H)
        columns = pooling_matrix(width, self.size[1])  # (S, W)
        # A mean over a rectangle is a mean over its columns, then over its rows. (N, C, H, S) first
        return (rows @ (x.float() @ columns.transpose(0, 1))).to(x.dtype)


def pooling_matrix(length: int, size: int) -> Tensor:
    """Return the weights (S, H) of H values in S means, float32.

    Mean i is over the values from floor(i H / S) up to, and without, ceil((i + 1) H / S).

    Args:
        length: H, which may be symbolic.
        size: S.
    """
    # In float32, for TensorRT for RTX 1.7 cannot compile whole numbers made of symbolic sizes. The
    # 0.5 keeps each quotient away from the next whole number, so that no division rounds it over.
    index = torch.arange(size, dtype=torch.float32)[:, None]
    first = torch.floor((index * length + 0.5) / size)
    end = torch.floor(((index + 1) * length + (size - 0.5)) / size)
    values = torch.arange(length, dtype=torch.float32)[None]
    inside = (values >= first) & (values < end)  # (S, H); neighbours may overlap
    return inside.float() / (end - first)


def replace_pooling(model: nn.Module) -> None:
    """Put a :class:`MatrixPool` in the place of every adaptive average pooling of a model.

    Args:
        model: changed in place.

    Raises:
        ValueError: a pooling keeps one of its sides.
    """
    for name, module in list(model.named_modules()):
        if not isinstance(module, nn.AdaptiveAvgPool2d):
            continue
        size: Any = module.output_size
        # PyTorch takes one number, two, or None for a side that stays as it is.
        pair = (size, size) if isinstance(size, int) else tuple(size)
        if len(pair) != 2 or not all(isinstance(side, int) for side in pair):
            raise ValueError(
                f"replace_pooling: expected adaptive poolings of a given height and width, got "
                f"{module} as {name}"
            )
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, MatrixPool((pair[0], pair[1])))
