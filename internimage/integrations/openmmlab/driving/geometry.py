"""Geometry of a bird's eye view: its cells, their pillars, what cameras see of them, its motion.

All points are in the ego frame of the keyframe: x forward, y left, z up, metres. A BEV tensor is
(B, C, H, W) with row 0 at y_min and column 0 at x_min. Shapes: B batch, N cameras, H W cells of
the BEV, D points of a pillar, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# BEVFormer's epsilon, which decides what its released models count as seen.
MIN_DEPTH = 1e-5
"""Metres in front of a camera from which a point counts as seen."""


def are_bounds(range: Sequence[float]) -> bool:
    """Whether numbers are minima and, behind them, as many larger maxima, all of them finite."""
    half = len(range) // 2
    return (
        all(math.isfinite(value) for value in range)
        and len(range) == 2 * half
        and all(low < high for low, high in zip(range[:half], range[half:], strict=True))
    )


@dataclass(frozen=True)
class BEVGrid:
    """The rectangle that a bird's eye view covers, and its cells.

    Args:
        range: x_min, y_min, z_min, x_max, y_max, z_max in metres.
        shape: cells (H, W) along y and along x.

    Raises:
        ValueError: a range is empty, or a number of cells is not whole and positive.
    """

    range: tuple[float, float, float, float, float, float]
    shape: tuple[int, int]

    def __post_init__(self) -> None:
        """Check the numbers, and take lists of a config as tuples."""
        object.__setattr__(self, "range", tuple(float(value) for value in self.range))
        if len(self.range) != 6 or not are_bounds(self.range):
            raise ValueError(
                "BEVGrid: expected range = x_min, y_min, z_min, x_max, y_max, z_max with every "
                f"minimum below its maximum, got {self.range}"
            )
        if len(self.shape) != 2 or not all(value >= 1 and value % 1 == 0 for value in self.shape):
            raise ValueError(
                "BEVGrid: expected shape = (H, W), whole numbers of 1 or more, got "
                f"{tuple(self.shape)}"
            )
        object.__setattr__(self, "shape", tuple(int(value) for value in self.shape))

    @property
    def extent(self) -> tuple[float, float, float]:
        """Length along x, y and z in metres."""
        x0, y0, z0, x1, y1, z1 = self.range
        return x1 - x0, y1 - y0, z1 - z0

    @property
    def cell_size(self) -> tuple[float, float]:
        """Length of a cell along x and along y in metres."""
        return self.extent[0] / self.shape[1], self.extent[1] / self.shape[0]

    def centres(self, device: torch.device | str | None = None) -> Tensor:
        """Centres of the cells as fractions (x, y) of the range, (H, W, 2) float32."""
        height, width = self.shape
        # Halves, because 0 and 1 are the outer edges of the outer cells: as grid_sample with
        # align_corners=False and mmcv's deformable attention have it.
        y = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) / height
        x = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) / width
        return torch.stack(torch.broadcast_tensors(x[None, :], y[:, None]), dim=-1)

    def to_metres(self, fractions: Tensor) -> Tensor:
        """Turn fractions (..., 2 or 3) of the range into ego coordinates in metres."""
        size = fractions.shape[-1]
        origin = fractions.new_tensor(self.range[:size])
        return fractions * fractions.new_tensor(self.extent[:size]) + origin

    def to_fractions(self, points: Tensor) -> Tensor:
        """Turn ego coordinates (..., 2 or 3) in metres into fractions of the range."""
        size = points.shape[-1]
        origin = points.new_tensor(self.range[:size])
        return (points - origin) / points.new_tensor(self.extent[:size])


def pillar_points(
    grid: BEVGrid, num_points: int, device: torch.device | str | None = None
) -> Tensor:
    """Return the points at which a cell looks into the cameras, (H, W, D, 3) in metres.

    A pillar (BEVFormer, section 3.3) stands on the centre of its cell. Its points keep half a metre
    from the bottom and the top of the range and are spread evenly between.

    Args:
        grid: the cells; its range must be higher than one metre.
        num_points: D.
        device: where the points are to be.

    Raises:
        ValueError: the range is too low for the half metres.
    """
    height = grid.extent[2]
    if height <= 1.0:
        raise ValueError(
            f"pillar_points: expected a grid that is higher than 1 m, got {height:g} m"
        )
    # Not the middles of D layers: BEVFormer's code, and with it the released models, looks here.
    # Its paper (section 4.2) says: evenly from the bottom of the range to its top.
    z = torch.linspace(0.5, height - 0.5, num_points, device=device) + grid.range[2]
    # (H, W, D, 2)
    xy = grid.to_metres(grid.centres(device))[:, :, None].expand(-1, -1, num_points, -1)
    return torch.cat([xy, z[None, None, :, None].expand(*grid.shape, -1, -1)], dim=-1)


class Projection(NamedTuple):
    """Points in the images of cameras."""

    points: Tensor
    """(B, N, ..., 2): (u, v) as fractions of the image's width and height."""

    visible: Tensor
    """(B, N, ...) bool: in front of the camera and strictly inside of its image."""


def project(points: Tensor, ego2img: Tensor, image_shape: tuple[int, int]) -> Projection:
    """Project ego points into every camera.

    Args:
        points: (..., 3) in metres, the same ones for all cameras.
        ego2img: (B, N, 4, 4): ego metres to (u d, v d, d, 1), u and v in pixels from the left and
            the upper edge of the network's input, d the depth in metres.
        image_shape: height and width of the network's input in pixels.

    Returns:
        Where they are and whether they are seen, in full float32 under autocast and with TF32 too:
        half precision cannot tell neighbouring pixels apart.

    Raises:
        ValueError: ``points`` or ``ego2img`` have another shape.
    """
    if points.shape[-1] != 3 or ego2img.ndim != 4 or ego2img.shape[-2:] != (4, 4):
        raise ValueError(
            "project: expected points of shape (..., 3) and ego2img of shape (B, N, 4, 4), got "
            f"{tuple(points.shape)} and {tuple(ego2img.shape)}"
        )
    # float32 is enough because the ego is the origin: metres, not a map's kilometres.
    x, y, z = points.reshape(-1, 3).float().T.contiguous()
    matrix = ego2img.float()[..., :3, :, None]  # (B, N, 3, 4, 1)
    # Equation 4 of BEVFormer, (B, N, 3, points): u d, v d and d. Sums of products, because TF32 and
    # autocast round the factors of `@`, to a tenth of a pixel and more; BEVFormer's code switches
    # both off here.
    image = matrix[..., 0, :] * x + matrix[..., 1, :] * y + matrix[..., 2, :] * z
    image = image + matrix[..., 3, :]  # times the 1 of a homogeneous point
    depth = image[..., 2, :]
    # Behind the camera the quotient means nothing; the clamp keeps it finite.
    uv = image[..., :2, :] / depth.clamp(min=MIN_DEPTH)[..., None, :]
    # By the padded size: the feature maps, in which these fractions are looked up, cover the
    # padding.
    uv = uv / uv.new_tensor([[image_shape[1]], [image_shape[0]]])
    visible = (depth > MIN_DEPTH) & ((uv > 0) & (uv < 1)).all(dim=-2)
    shape = (*ego2img.shape[:2], *points.shape[:-1])
    return Projection(uv.transpose(-1, -2).reshape(*shape, 2), visible.reshape(shape))


def warp_bev(bev: Tensor, motion: Tensor, grid: BEVGrid) -> tuple[Tensor, Tensor]:
    """Move a bird's eye view of the previous ego frame into the current one.

    Each cell of the current frame is looked up, bilinearly, where its centre on the ego's ground
    plane z = 0 was in the previous frame.

    Args:
        bev: (B, C, H, W), in the previous ego frame.
        motion: (B, 4, 4) from previous ego coordinates to current ones, metres.
        grid: the cells, the same in both frames.

    Returns:
        The view in the current frame (B, C, H, W), and (B, H, W) bool: whether a cell lay within
        the previous view. Where it did not, the view holds what lay at its border.
    """
    with torch.autocast(bev.device.type, enabled=False):
        centres = grid.to_metres(grid.centres(bev.device))
        # (H, W, 4), homogeneous.
        ground = torch.cat(
            [centres, torch.zeros_like(centres[..., :1]), torch.ones_like(centres[..., :1])], -1
        )
        # float64: poses may be far from the origin of the world
        # Backwards: each new cell asks where it was.
        back = torch.linalg.inv(motion.double())
        before = torch.einsum("bij,hwj->bhwi", back, ground.double())[..., :2]  # (B, H, W, 2)
        fractions = grid.to_fractions(before)
        inside = ((fractions >= 0) & (fractions <= 1)).all(dim=-1)
        # Not zeros beyond the border: the outer half of an outer cell is inside, and would be
        # dimmed.
        warped = F.grid_sample(
            bev.float(),
            (2 * fractions - 1).float(),
            mode="bilinear",
            padding_mode="border",
            align_corners=False,
        )
    return warped.to(bev.dtype), inside
