"""What the operator is measured against: the same sampling with PyTorch's and torchvision's ops.

Legend: N batch, H W input, Ho Wo output, C channels, G groups, D = C/G channels a group, P points.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

KERNEL_SIZE, PADDING = 3, 1  # of every released model; stride and dilation are 1


def original_path(
    image: Tensor, offset: Tensor, mask: Tensor, *, groups: int, offset_scale: float = 1.0
) -> Tensor:
    """The steps of the original's PyTorch path, which is what it runs on a CPU.

    Pad the image with zeros, build the sampling grid in float32 as fractions of the padded size,
    put the groups into the batch, `grid_sample`, multiply by the mask, sum the points, put the
    groups back.

    Args:
        image: (N, H, W, C).
        offset: (N, H, W, G*P*2), x before y, pixels.
        mask: (N, H, W, G*P), normalised.
        groups: G.
        offset_scale: Multiplies grid and offsets.

    Returns:
        (N, H, W, C).
    """
    batch, out_h, out_w, channels = image.shape
    points = KERNEL_SIZE**2
    padded = F.pad(image, (0, 0, PADDING, PADDING, PADDING, PADDING))
    height, width = padded.shape[1:3]
    size = torch.tensor([width, height], dtype=torch.float32, device=image.device)

    # centres of the kernels and the 3 x 3 grid around them, column by column
    half = KERNEL_SIZE // 2
    centre_y = torch.linspace(half + 0.5, half + out_h - 0.5, out_h, device=image.device)
    centre_x = torch.linspace(half + 0.5, half + out_w - 0.5, out_w, device=image.device)
    centres = torch.stack(torch.meshgrid(centre_x, centre_y, indexing="xy"), -1) / size
    steps = torch.linspace(-half, half, KERNEL_SIZE, device=image.device)
    grid = torch.stack(torch.meshgrid(steps, steps, indexing="ij"), -1).reshape(points, 2) / size

    grid = grid.repeat(groups, 1).view(1, 1, 1, groups * points, 2)
    where = centres.view(1, out_h, out_w, 1, 2) + grid * offset_scale
    shifts = offset.view(batch, out_h, out_w, groups * points, 2) * offset_scale / size
    where = (where + shifts).to(image.dtype) * 2 - 1

    pixels = padded.view(batch, height * width, channels).transpose(1, 2)
    pixels = pixels.reshape(batch * groups, channels // groups, height, width)
    where = where.view(batch, out_h * out_w, groups, points, 2).transpose(1, 2).flatten(0, 1)
    sampled = F.grid_sample(
        pixels, where, mode="bilinear", padding_mode="zeros", align_corners=False
    )  # (N*G, D, Ho*Wo, P)
    weights = mask.view(batch, out_h * out_w, groups, points).transpose(1, 2)
    weights = weights.reshape(batch * groups, 1, out_h * out_w, points)
    output = (sampled * weights).sum(-1).view(batch, channels, out_h * out_w)
    return output.transpose(1, 2).reshape(batch, out_h, out_w, channels).contiguous()


def torchvision_arguments(
    image: Tensor, offset: Tensor, mask: Tensor, *, groups: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Input, weight, offset and mask of `torchvision.ops.deform_conv2d` for the same sum.

    A depth-wise convolution whose weights are one, with G offset groups, adds up the same points.
    Not equal: it wants channels first, y before x and points row by row; the reordering here is not
    timed, so that a model with channels-last features would pay more than the benchmark shows.
    """
    batch, height, width, channels = image.shape
    rows = columns = KERNEL_SIZE
    shape = (batch, height, width, groups, columns, rows)
    swapped = offset.reshape(*shape, 2).transpose(4, 5).flip(-1)
    return (
        image.permute(0, 3, 1, 2).contiguous(),
        torch.ones((channels, 1, rows, columns), dtype=image.dtype, device=image.device),
        swapped.reshape(batch, height, width, -1).permute(0, 3, 1, 2).contiguous(),
        mask.reshape(shape)
        .transpose(4, 5)
        .reshape(batch, height, width, -1)
        .permute(0, 3, 1, 2)
        .contiguous(),
    )


def torchvision_path(image: Tensor, weight: Tensor, offset: Tensor, mask: Tensor) -> Tensor:
    """`deform_conv2d` on the result of `torchvision_arguments`; (N, C, H, W)."""
    from torchvision.ops import deform_conv2d

    return deform_conv2d(image, offset, weight, padding=PADDING, mask=mask)
