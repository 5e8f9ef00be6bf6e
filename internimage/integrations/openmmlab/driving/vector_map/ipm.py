"""Inverse perspective mapping: a bird's eye view from planes that are looked up in all images.

VectorMapNet, arXiv 2206.08920, section 3.2. B batch, N cameras, L levels, C channels, h w pixels
of a feature map, K planes of H x W points.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from internimage.integrations.openmmlab.driving.geometry import BEVGrid, project
from internimage.integrations.openmmlab.driving.history import BEVHistory


def plane_points(grid: BEVGrid, heights: Sequence[float]) -> Tensor:
    """Return the points (K, H, W, 3) of horizontal planes, in metres.

    The outer points lie on the edges of the range, so that their distance is a little more than
    the size of a cell.
    """
    x0, y0, _, x1, y1, _ = grid.range
    y = torch.linspace(y0, y1, grid.shape[0])
    x = torch.linspace(x0, x1, grid.shape[1])
    axes = torch.meshgrid(torch.tensor(list(heights)), y, x, indexing="ij")
    return torch.stack(axes[::-1], dim=-1)  # x, y, z of axes that run z, y, x


def look_up(
    features: Tensor, points: Tensor, ego2img: Tensor, image_shape: tuple[int, int]
) -> Tensor:
    """Return what the cameras show at points: the mean over those that see one.

    Args:
        features: (B, N, C, h, w).
        points: (K, H, W, 3) in metres.
        ego2img: (B, N, 4, 4).
        image_shape: height and width of the network's input in pixels.

    Returns:
        (B, C, K, H, W), 0 where no camera looks.
    """
    batch, cameras, channels = features.shape[:3]
    projection = project(points.flatten(0, 2), ego2img, image_shape)
    # The points of all planes in one row: (B, C, K H W).
    total = features.new_zeros(batch, channels, projection.visible.shape[-1])
    # One camera after the other: all at once takes N times the memory.
    for camera in range(cameras):
        # In float32: half precision does not tell neighbouring pixels apart.
        places = 2 * projection.points[:, camera, None].float() - 1
        found = F.grid_sample(features[:, camera].float(), places, align_corners=False)[:, :, 0]
        # Half a pixel beyond the edge grid_sample still finds some of the image; such a point is
        # not counted, so it must not be summed either.
        total = total + found.to(total.dtype) * projection.visible[:, camera, None]
    # (B, 1, K H W): each camera weighs the same, however near the point is to it.
    count = projection.visible.sum(dim=1)[:, None]
    return (total / count.clamp(min=1)).unflatten(-1, points.shape[:3])


class UpsampleBlock(nn.Sequential):
    """Convolution, norm, ReLU, and twice the size.

    Args:
        channels: of input and output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        # 32 groups, the original's, or fewer where 32 does not divide the channels.
        self.gn = nn.GroupNorm(math.gcd(32, channels), channels)
        self.relu = nn.ReLU(inplace=True)
        # align_corners as the original was trained, unlike the look-up of the planes.
        self.resize = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)


@MODELS.register_module()
class IPMView(BaseModule):
    """The bird's eye view of a vectorised map.

    The levels of a pyramid are summed at the finest one, looked up at planes of several heights,
    and go, together with the points' coordinates, through the beginning of a ResNet.

    Args:
        grid: range and shape of a ``BEVGrid``: points (H, W) of a plane. The view has a quarter of
            them along each side.
        heights: z of the planes in metres.
        in_channels: C of the levels.
        num_levels: L; every level is half the size of the one before.
        trunk_channels: of the trunk inside.
        out_channels: of the view.
        init_cfg: as everywhere in mmengine.

    Raises:
        ValueError: there is no plane, or one lies outside of the range.
    """

    # What BEVModel asks of every view.
    uses_history = False
    uses_can_bus = False
    absolute_can_bus = False

    def __init__(
        self,
        grid: BEVGrid | dict[str, Any],
        *,
        # The released model's; the paper (appendix C.3) has -1, 0, 1 and 2 m. Several, because
        # nobody says how high the ground is.
        heights: Sequence[float] = (-1.1, 0.0, 0.5, 1.1),
        in_channels: int = 128,
        num_levels: int = 4,
        trunk_channels: int = 64,
        out_channels: int = 128,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(init_cfg)
        self.grid = grid if isinstance(grid, BEVGrid) else BEVGrid(**grid)
        low, high = self.grid.range[2], self.grid.range[5]
        if not heights or not all(low <= height <= high for height in heights):
            raise ValueError(
                f"IPMView: expected planes at heights of {low} to {high} m, got {heights}"
            )
        self.in_channels = in_channels
        self.points: Tensor
        self.register_buffer("points", plane_points(self.grid, heights), persistent=False)
        self.upsample = nn.ModuleList(
            # None for the finest level: an empty sequence passes it on.
            nn.Sequential(*[UpsampleBlock(in_channels) for _ in range(level)])
            for level in range(num_levels)
        )
        # The channels and the place of each plane's points: 4 x (128 + 3) = 524.
        self.to_bev = nn.Conv2d(len(heights) * (in_channels + 3), in_channels, 3, padding=1)
        # ResNet-18 up to its first stage, with a stride of 4.
        self.trunk = nn.Sequential(
            nn.Conv2d(in_channels, trunk_channels, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(trunk_channels),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, padding=1),
            nn.Sequential(*[BasicBlock(trunk_channels, trunk_channels) for _ in range(2)]),
            nn.Conv2d(trunk_channels, out_channels, 1, bias=False),
        )

    def forward(
        self,
        features: Sequence[Tensor],
        ego2img: Tensor,
        image_shape: tuple[int, int],
        *,
        history: BEVHistory | None = None,
        can_bus: Tensor | None = None,
    ) -> Tensor:
        """Return the view (B, out_channels, H / 4, W / 4).

        Args:
            features: L levels (B, N, C, h, w), the finest first.
            ego2img: (B, N, 4, 4).
            image_shape: height and width of the network's input in pixels.
            history: None; every frame is by itself.
            can_bus: None.

        Raises:
            ValueError: there is a history or readings of the ego's motion, or numbers of levels,
                cameras or channels are others.
        """
        if history is not None or can_bus is not None:
            raise ValueError(
                "IPMView: expected no history and no readings, of which it makes nothing, got some"
            )
        batch, cameras = ego2img.shape[:2]
        expected = (batch, cameras, self.in_channels)
        shapes = [tuple(level.shape[:3]) for level in features]
        if shapes != [expected] * len(self.upsample):
            raise ValueError(
                f"IPMView: expected {len(self.upsample)} levels of (batch, cameras, channels) = "
                f"{expected}, got {shapes}"
            )
        # (B N, C, h, w) of the finest level; convolution and norm stand before each doubling.
        finest = torch.stack(
            [
                blocks(level.flatten(0, 1))
                for blocks, level in zip(self.upsample, features, strict=True)
            ]
        ).sum(dim=0)
        seen = look_up(finest.unflatten(0, (batch, cameras)), self.points, ego2img, image_shape)
        places = self.points.permute(3, 0, 1, 2).to(seen.dtype).expand(batch, -1, -1, -1, -1)
        # (B, C + 3, K, H, W): the planes of a channel lie beside each other.
        return self.trunk(self.to_bev(torch.cat([seen, places], dim=1).flatten(1, 2)))
