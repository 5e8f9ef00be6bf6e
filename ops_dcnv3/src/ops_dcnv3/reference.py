"""DCNv3 in plain PyTorch: the definition, the oracle of every test, and the path of last resort.

Shape legend (used everywhere in this package)::

    N        images in the batch            H, W     input height and width, pixels
    C        channels                       Ho, Wo   output height and width, pixels
    G        groups                         P        sampling points a group
    D = C/G  channels a group

Definition (InternImage, Wang et al., CVPR 2023, equation 2). For output pixel ``(y, x)``, group
``g`` and sampling point ``p``::

    px = x * stride_w - padding_w + half_w + offset_scale * (i * dilation_w - half_w + dx)
    py = y * stride_h - padding_h + half_h + offset_scale * (j * dilation_h - half_h + dy)
    out[n, y, x, g, :] = sum_p weight[p] * bilinear(input[n, :, :, g, :], py, px)

with ``half = dilation * (K - 1) // 2`` and ``p`` running over the kernel column by
column: ``i`` (along x) is the outer index and ``j`` (along y) the inner one. With ``remove_center``
the middle point is left out and not counted. ``offset_scale`` multiplies the dilated grid as well
as the learned offset.

Note [Borders]
    Pixel centres lie on integer coordinates. A point contributes when ``-1 < py < H`` and ``-1 < px
    < W``, and each of its four corners only where it lies inside the image. A position that is NaN
    or infinite fails the comparison, so that point contributes nothing, whatever its weight.

Note [One-sided derivative]
    Bilinear interpolation has a kink at integer coordinates. The derivative there is the right-hand
    one: corners are ``floor(py)`` and ``floor(py) + 1``. Points outside have zero derivative.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

IntPair = int | tuple[int, int]


class Geometry(NamedTuple):
    """The static arguments of the operator, in the order of its schema."""

    kernel_h: int
    kernel_w: int
    stride_h: int
    stride_w: int
    padding_h: int
    padding_w: int
    dilation_h: int
    dilation_w: int
    groups: int
    offset_scale: float
    remove_center: bool

    @property
    def num_points(self) -> int:
        """P, the sampling points of one group."""
        return self.kernel_h * self.kernel_w - int(self.remove_center)

    def points_per_pixel(self) -> int:
        """G*P. A method: the compiler of torch 2.10 cannot trace a named tuple's property."""
        return self.groups * (self.kernel_h * self.kernel_w - int(self.remove_center))

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Returns (Ho, Wo) for an input of ``height`` x ``width`` pixels."""
        out_h = (
            height + 2 * self.padding_h - self.dilation_h * (self.kernel_h - 1) - 1
        ) // self.stride_h + 1
        out_w = (
            width + 2 * self.padding_w - self.dilation_w * (self.kernel_w - 1) - 1
        ) // self.stride_w + 1
        return out_h, out_w

    def split(self, offset_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Parts (N, Ho, Wo, at least G*P*3) into offsets and weights; the rest is padding."""
        num_weights = self.points_per_pixel()
        offset, mask = offset_mask[..., : 2 * num_weights], offset_mask[..., 2 * num_weights :]
        return offset, mask[..., :num_weights]


class _Samples(NamedTuple):
    """Where each point reads: corners in the order (y0 x0), (y0 x1), (y1 x0), (y1 x1)."""

    pixel: Tensor  # (4, N, Ho*Wo*P, G) number y * W + x of a corner's pixel, 0 where outside
    inside: Tensor  # (4, N, Ho*Wo*P, G) bool
    frac_y: Tensor  # (N, Ho*Wo*P, G) distance to the upper corners, 0-1
    frac_x: Tensor  # (N, Ho*Wo*P, G) distance to the left corners, 0-1
    contributes: Tensor  # (N, Ho*Wo*P, G) bool


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """Returns the dtype to calculate in: float64 for float64, float32 for all others.

    The CUDA kernels alone depart from it, see "Precision" in docs/dcnv3.md.
    """
    return torch.float64 if dtype == torch.float64 else torch.float32


def sampling_positions(offset: Tensor, geometry: Geometry) -> tuple[Tensor, Tensor]:
    """Returns the sampling positions of every point, in input pixels.

    Args:
        offset: (N, Ho, Wo, G*P*2), x before y, in units of ``offset_scale`` pixels.
        geometry: The operator's static arguments.

    Returns:
        ``(py, px)``, each (N, Ho, Wo, G, P), in ``compute_dtype(offset.dtype)``.
    """
    g = geometry
    n, out_h, out_w = offset.shape[:3]
    dtype, device = compute_dtype(offset.dtype), offset.device
    half_h, half_w = g.dilation_h * (g.kernel_h - 1) // 2, g.dilation_w * (g.kernel_w - 1) // 2
    i = torch.arange(g.kernel_w, device=device).repeat_interleave(
        g.kernel_h
    )  # outer index, along x
    j = torch.arange(g.kernel_h, device=device).repeat(g.kernel_w)  # inner index, along y
    if g.remove_center:
        keep = (i != g.kernel_w // 2) | (j != g.kernel_h // 2)
        i, j = i[keep], j[keep]
    grid_x = (i * g.dilation_w - half_w).to(dtype)  # (P)
    grid_y = (j * g.dilation_h - half_h).to(dtype)
    base_x = (torch.arange(out_w, device=device) * g.stride_w - g.padding_w + half_w).to(dtype)
    base_y = (torch.arange(out_h, device=device) * g.stride_h - g.padding_h + half_h).to(dtype)
    delta = offset.to(dtype).reshape(n, out_h, out_w, g.groups, g.num_points, 2)
    px = base_x.view(1, 1, -1, 1, 1) + g.offset_scale * (grid_x + delta[..., 0])
    py = base_y.view(1, -1, 1, 1, 1) + g.offset_scale * (grid_y + delta[..., 1])
    return py, px


def _locate(
    offset: Tensor, height: int, width: int, geometry: Geometry, dtype: torch.dtype
) -> _Samples:
    """Turns offsets into corner indices and fractions; see Note [Borders]."""
    n = offset.shape[0]
    num_samples = offset.shape[1] * offset.shape[2] * geometry.num_points
    py, px = sampling_positions(offset.to(torch.promote_types(dtype, offset.dtype)), geometry)
    # (N, Ho, Wo, G, P) -> (N, Ho*Wo*P, G): one axis of samples, groups last
    py = py.transpose(-1, -2).reshape(n, num_samples, geometry.groups).to(dtype)
    px = px.transpose(-1, -2).reshape(n, num_samples, geometry.groups).to(dtype)
    contributes = (py > -1) & (px > -1) & (py < height) & (px < width)
    # where() before any arithmetic: a NaN position must reach neither the value nor the gradient
    py = torch.where(contributes, py, torch.zeros_like(py))
    px = torch.where(contributes, px, torch.zeros_like(px))
    y0, x0 = py.detach().floor(), px.detach().floor()
    index, inside = [], []
    for y, x in ((y0, x0), (y0, x0 + 1), (y0 + 1, x0), (y0 + 1, x0 + 1)):
        within = contributes & (y >= 0) & (y < height) & (x >= 0) & (x < width)
        pixel = y.to(torch.int64) * width + x.to(torch.int64)
        index.append(torch.where(within, pixel, torch.zeros_like(pixel)))
        inside.append(within)
    return _Samples(torch.stack(index), torch.stack(inside), py - y0, px - x0, contributes)


def _read_corners(input: Tensor, samples: _Samples, groups: int, dtype: torch.dtype) -> Tensor:
    """Gathers the four corners of every sample: (4, N, Ho*Wo*P, G, D), zero where outside."""
    n, height, width, channels = input.shape
    pixels = input.to(dtype).reshape(n, height * width, groups, channels // groups)
    corners = []
    for index, inside in zip(samples.pixel, samples.inside, strict=True):
        value = pixels.gather(1, index.unsqueeze(-1).expand(-1, -1, -1, pixels.shape[-1]))
        corners.append(torch.where(inside.unsqueeze(-1), value, torch.zeros_like(value)))
    return torch.stack(corners)


def _corner_weights(samples: _Samples) -> Tensor:
    """Bilinear weights of the four corners: (4, N, Ho*Wo*P, G)."""
    fy, fx = samples.frac_y, samples.frac_x
    return torch.stack([(1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx])


def _point_weights(mask: Tensor, geometry: Geometry, dtype: torch.dtype, softmax: bool) -> Tensor:
    """Weights of the points, normalised if asked: (N, Ho, Wo, G, P)."""
    weight = mask.to(dtype).reshape(*mask.shape[:3], geometry.groups, geometry.num_points)
    return weight.softmax(-1) if softmax else weight


def _samples_last(weight: Tensor) -> Tensor:
    """(N, Ho, Wo, G, P) -> (N, Ho*Wo*P, G), the layout of ``_Samples``."""
    n, out_h, out_w, groups, points = weight.shape
    return weight.transpose(-1, -2).reshape(n, out_h * out_w * points, groups)


def forward(
    input: Tensor, offset: Tensor, mask: Tensor, geometry: Geometry, softmax: bool
) -> Tensor:
    """The definition above; shapes as in :func:`ops_dcnv3.dcnv3`. Differentiable by autograd."""
    n, height, width, channels = input.shape
    out_h, out_w = offset.shape[1:3]
    dtype = compute_dtype(input.dtype)
    samples = _locate(offset, height, width, geometry, dtype)
    corners = _read_corners(input, samples, geometry.groups, dtype)
    value = (_corner_weights(samples).unsqueeze(-1) * corners).sum(0)  # (N, Ho*Wo*P, G, D)
    weight = _samples_last(_point_weights(mask, geometry, dtype, softmax))
    weight = torch.where(samples.contributes, weight, torch.zeros_like(weight))
    output = (weight.unsqueeze(-1) * value).reshape(
        n, out_h * out_w, geometry.num_points, geometry.groups, channels // geometry.groups
    )
    return output.sum(2).reshape(n, out_h, out_w, channels).to(input.dtype)


def backward(
    grad_output: Tensor,
    input: Tensor,
    offset: Tensor,
    mask: Tensor,
    geometry: Geometry,
    softmax: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of :func:`forward`, written out; each in the shape and dtype of what it belongs to.

    With ``softmax`` the third one is the gradient of the logits.
    """
    g = geometry
    n, height, width, channels = input.shape
    out_h, out_w = offset.shape[1:3]
    depth = channels // g.groups
    dtype = compute_dtype(input.dtype)
    samples = _locate(offset, height, width, g, dtype)
    corners = _read_corners(input, samples, g.groups, dtype)
    corner_weight = _corner_weights(samples)
    weight = _point_weights(mask, g, dtype, softmax)
    point_weight = _samples_last(weight)
    point_weight = torch.where(samples.contributes, point_weight, torch.zeros_like(point_weight))

    # the gradient of an output pixel, repeated for its P samples: (N, Ho*Wo*P, G, D)
    grad = grad_output.to(dtype).reshape(n, out_h * out_w, 1, g.groups, depth)
    grad = grad.expand(-1, -1, g.num_points, -1, -1).reshape(corners.shape[1:])
    dot = (grad * corners).sum(-1)  # (4, N, Ho*Wo*P, G): each corner's share of the loss
    fy, fx = samples.frac_y, samples.frac_x
    along_x = (1 - fy) * (dot[1] - dot[0]) + fy * (dot[3] - dot[2])
    along_y = (1 - fx) * (dot[2] - dot[0]) + fx * (dot[3] - dot[1])
    scale = g.offset_scale * point_weight
    grad_offset = torch.stack([scale * along_x, scale * along_y], dim=-1)  # (N, Ho*Wo*P, G, 2)
    grad_offset = torch.where(
        samples.contributes.unsqueeze(-1), grad_offset, torch.zeros_like(grad_offset)
    )
    grad_offset = grad_offset.reshape(n, out_h, out_w, g.num_points, g.groups, 2).transpose(3, 4)

    grad_weight = (corner_weight * dot).sum(0)
    grad_weight = torch.where(samples.contributes, grad_weight, torch.zeros_like(grad_weight))
    grad_mask = grad_weight.reshape(n, out_h, out_w, g.num_points, g.groups).transpose(3, 4)
    if softmax:
        grad_mask = weight * (grad_mask - (weight * grad_mask).sum(-1, keepdim=True))

    grad_input = torch.zeros(n, height * width, g.groups, depth, dtype=dtype, device=input.device)
    for k in range(4):
        share = torch.where(
            samples.inside[k], corner_weight[k] * point_weight, torch.zeros_like(point_weight)
        )
        index = samples.pixel[k].unsqueeze(-1).expand(-1, -1, -1, depth)
        contribution = torch.where(
            samples.inside[k].unsqueeze(-1), share.unsqueeze(-1) * grad, torch.zeros_like(grad)
        )
        grad_input.scatter_add_(1, index, contribution)
    return (
        grad_input.reshape(input.shape).to(input.dtype),
        grad_offset.reshape(offset.shape).to(offset.dtype),
        grad_mask.reshape(mask.shape).to(mask.dtype),
    )
