"""The oracle: DCNv3 as plain loops over float64, forward and its three gradients by formula.

Written from the definition alone and sharing no code with the package, so that an error in the
package cannot hide in its own reference. With h = floor(d (K - 1) / 2) and kernel column i, row j
(the column is the outer loop):

    px = x s_w - p_w + h_w + offset_scale (i d_w - h_w + dx)        py likewise with rows
    out[n, y, x, g, :] = sum_p mask[n, y, x, g, p] bilinear(input[n, :, :, g, :]; py, px)

A point contributes when -1 < py < H and -1 < px < W; a tap outside the image counts as zero.

Legend: N batch, H W input, Ho Wo output, C channels, G groups, D = C/G channels a group, P points.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Geometry:
    """The operator's settings, each size as a (height, width) pair."""

    groups: int
    kernel_size: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    offset_scale: float = 1.0
    remove_center: bool = False

    def points(self) -> list[tuple[int, int]]:
        """Kernel points as (column, row), in the order of the mask's channels."""
        rows, columns = self.kernel_size
        center = (columns // 2, rows // 2) if self.remove_center else None
        return [(i, j) for i in range(columns) for j in range(rows) if (i, j) != center]

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Size (Ho, Wo) of the output for an input of (H, W)."""
        sizes = []
        for axis, size in enumerate((height, width)):
            reach = self.dilation[axis] * (self.kernel_size[axis] - 1) + 1
            sizes.append((size + 2 * self.padding[axis] - reach) // self.stride[axis] + 1)
        return sizes[0], sizes[1]


def positions(offset: Array, geometry: Geometry) -> Array:
    """Sampling positions of every point in pixels.

    Args:
        offset: (N, Ho, Wo, G * P * 2), x before y.
        geometry: The operator's settings.

    Returns:
        (N, Ho, Wo, G, P, 2) as (px, py).
    """
    batch, height, width, _ = offset.shape
    points = geometry.points()
    delta = offset.reshape(batch, height, width, geometry.groups, len(points), 2)
    result = np.empty(delta.shape)
    half = [geometry.dilation[a] * (geometry.kernel_size[a] - 1) // 2 for a in (0, 1)]
    for p, (i, j) in enumerate(points):
        for channel, axis, step in ((0, 1, i), (1, 0, j)):  # x moves along the width: axis 1
            size = width if axis == 1 else height
            base = np.arange(size) * geometry.stride[axis] - geometry.padding[axis] + half[axis]
            base = base[None, None, :, None] if axis == 1 else base[None, :, None, None]
            reach = step * geometry.dilation[axis] - half[axis] + delta[..., p, channel]
            result[..., p, channel] = base + geometry.offset_scale * reach
    return result


def _taps(
    py: float, px: float, height: int, width: int
) -> Iterator[tuple[int, int, float, float, float]]:
    """Yield (row, column, weight, d weight / d py, d weight / d px) of the taps inside."""
    if not (-1 < py < height and -1 < px < width):  # False for NaN as well
        return
    top, left = math.floor(py), math.floor(px)
    fy, fx = py - top, px - left
    for row, wy, dwy in ((top, 1 - fy, -1.0), (top + 1, fy, 1.0)):
        for column, wx, dwx in ((left, 1 - fx, -1.0), (left + 1, fx, 1.0)):
            if 0 <= row < height and 0 <= column < width:
                yield row, column, wy * wx, dwy * wx, wy * dwx


def softmax(logits: Array, geometry: Geometry) -> Array:
    """Softmax of (N, Ho, Wo, G * P) over the P points of each group."""
    grouped = logits.reshape(*logits.shape[:-1], geometry.groups, len(geometry.points()))
    powers = np.exp(grouped - grouped.max(-1, keepdims=True))
    return (powers / powers.sum(-1, keepdims=True)).reshape(logits.shape)


def forward(image: Array, offset: Array, mask: Array, geometry: Geometry) -> Array:
    """Output (N, Ho, Wo, C).

    Args:
        image: (N, H, W, C).
        offset: (N, Ho, Wo, G*P*2).
        mask: (N, Ho, Wo, G*P), normalised or not.
        geometry: The operator's settings.
    """
    batch, height, width, channels = image.shape
    groups, num_points = geometry.groups, len(geometry.points())
    grouped = image.reshape(batch, height, width, groups, channels // groups)
    weights = mask.reshape(*mask.shape[:-1], groups, num_points)
    where = positions(offset, geometry)
    output = np.zeros((*offset.shape[:3], groups, channels // groups))
    for n, y, x, g, p in np.ndindex(*where.shape[:-1]):
        px, py = where[n, y, x, g, p]
        for row, column, weight, _, _ in _taps(py, px, height, width):
            output[n, y, x, g] += weights[n, y, x, g, p] * weight * grouped[n, row, column, g]
    return output.reshape(*offset.shape[:3], channels)


def backward(
    image: Array, offset: Array, mask: Array, grad_output: Array, geometry: Geometry
) -> tuple[Array, Array, Array]:
    """Gradients of sum(output * grad_output) by image, offset and mask; shapes as in `forward`."""
    batch, height, width, channels = image.shape
    groups, num_points = geometry.groups, len(geometry.points())
    grouped = image.reshape(batch, height, width, groups, channels // groups)
    weights = mask.reshape(*mask.shape[:-1], groups, num_points)
    upstream = grad_output.reshape(*grad_output.shape[:3], groups, channels // groups)
    where = positions(offset, geometry)
    grad_image = np.zeros_like(grouped)
    grad_offset = np.zeros_like(where)
    grad_mask = np.zeros_like(weights)
    scale = geometry.offset_scale  # d position / d offset
    for n, y, x, g, p in np.ndindex(*where.shape[:-1]):
        px, py = where[n, y, x, g, p]
        point_weight, top = weights[n, y, x, g, p], upstream[n, y, x, g]
        for row, column, weight, slope_y, slope_x in _taps(py, px, height, width):
            dot = float(top @ grouped[n, row, column, g])
            grad_image[n, row, column, g] += point_weight * weight * top
            grad_mask[n, y, x, g, p] += weight * dot
            grad_offset[n, y, x, g, p, 0] += scale * point_weight * slope_x * dot
            grad_offset[n, y, x, g, p, 1] += scale * point_weight * slope_y * dot
    return (
        grad_image.reshape(image.shape),
        grad_offset.reshape(offset.shape),
        grad_mask.reshape(mask.shape),
    )


def softmax_backward(logits: Array, grad_mask: Array, geometry: Geometry) -> Array:
    """Gradient of the logits from the gradient of the normalised mask, both (N, Ho, Wo, G * P)."""
    shape = (*logits.shape[:-1], geometry.groups, len(geometry.points()))
    mask, grad = softmax(logits, geometry).reshape(shape), grad_mask.reshape(shape)
    return (mask * (grad - (mask * grad).sum(-1, keepdims=True))).reshape(logits.shape)
