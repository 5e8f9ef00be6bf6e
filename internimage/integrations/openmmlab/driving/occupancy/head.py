"""The occupancy head: heights out of the channels of a bird's-eye view, and a class a voxel.

Legend: B batch, C channels of the view, (X, Y, Z) voxels with X = W and Y = H cells of the view,
K = 18 classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn

from internimage.integrations.openmmlab.driving.data.occ3d import IGNORED, OCCUPANCY_CLASSES
from internimage.integrations.openmmlab.driving.sample import DrivingSample


@MODELS.register_module()
class OccupancyHead(BaseModule):
    """Lifts a view to voxels by 3-D convolutions and classifies each.

    Args:
        in_channels: C, a multiple of ``num_heights``.
        num_heights: Z, the layers of voxels.
        conv_channels: channels of the two 3-D convolutions.
        hidden_channels: channels of the classifier's hidden layer.
        mask: the voxels that the loss is taken over: those that a camera or the LiDAR has seen, or
            all, as the released model was trained.
        loss_weight: factor of the loss.
        init_cfg: of mmengine's ``BaseModule``.

    Raises:
        ValueError: ``in_channels`` is no multiple of ``num_heights``, or ``mask`` is another word.
    """

    def __init__(
        self,
        in_channels: int = 256,
        *,
        num_heights: int = 16,
        conv_channels: int = 32,
        hidden_channels: int = 64,
        mask: Literal["none", "camera", "lidar"] = "none",
        loss_weight: float = 1.0,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if num_heights < 1 or in_channels % num_heights:
            raise ValueError(
                f"OccupancyHead: expected in_channels to be a multiple of num_heights, got "
                f"{in_channels} and {num_heights}"
            )
        if mask not in ("none", "camera", "lidar"):
            raise ValueError(f"OccupancyHead: expected mask none, camera or lidar, got {mask}")
        self.num_heights, self.mask, self.loss_weight = num_heights, mask, loss_weight
        common: dict[str, Any] = {
            "kernel_size": 3,
            "padding": 1,
            "conv_cfg": {"type": "Conv3d"},
            # Before a norm mmcv's ConvModule leaves the convolution's bias away, as in the released
            # file.
            "norm_cfg": {"type": "BN3d"},
        }
        self.decoder = nn.Sequential(
            ConvModule(in_channels // num_heights, conv_channels, **common),
            ConvModule(conv_channels, conv_channels, **common),
        )
        self.predictor = nn.Sequential(
            nn.Linear(conv_channels, hidden_channels),
            nn.Softplus(),
            nn.Linear(hidden_channels, len(OCCUPANCY_CLASSES)),
        )

    def forward(self, bev: Tensor, features: Sequence[Tensor] | None = None) -> Tensor:
        """Return the logits (B, X, Y, Z, K) of a view (B, C, H, W); the images are not used."""
        # Heights are the faster index among the channels: the released weights are laid out so.
        x = bev.unflatten(1, (-1, self.num_heights))  # (B, C / Z, Z, H, W)
        # Z H W to X Y Z, and the channels last, as linear layers take them.
        return self.predictor(self.decoder(x).permute(0, 4, 3, 2, 1))

    def loss(
        self, bev: Tensor, features: Sequence[Tensor], samples: Sequence[DrivingSample]
    ) -> dict[str, Tensor]:
        """Return the cross-entropy, a mean over the voxels that are labelled and in the mask.

        Args:
            bev: (B, C, H, W).
            features: of the images; not used.
            samples: with ``gt_semantics`` and, where a mask is asked for, ``mask_*``.

        Raises:
            ValueError: A sample lacks one of them, or its grid has another shape.
        """
        logits = self(bev)
        target = _stack(samples, "gt_semantics", logits.shape[1:4]).long()  # (B, X, Y, Z)
        if self.mask != "none":
            seen = _stack(samples, f"mask_{self.mask}", logits.shape[1:4])
            target = target.masked_fill(~seen, IGNORED)
        total = F.cross_entropy(
            # (B X Y Z, K)
            logits.flatten(0, 3),
            target.flatten(),
            ignore_index=IGNORED,
            reduction="sum",
        )
        # A frame in which nothing is seen has no mean.
        count = (target != IGNORED).sum().clamp(min=1)
        return {"loss_occupancy": self.loss_weight * total / count}

    def predict(
        self, bev: Tensor, features: Sequence[Tensor], samples: Sequence[DrivingSample]
    ) -> list[DrivingSample]:
        """Set ``pred_semantics`` (X, Y, Z) uint8, on the CPU, of each sample.

        Args:
            bev: (B, C, H, W).
            features: of the images; not used.
            samples: B of them.
        """
        # No softmax: the largest logit is the likeliest class. uint8 is what the score and
        # submissions hold, and an eighth of argmax's int64.
        classes = self(bev).argmax(-1).to(torch.uint8).cpu()
        for sample, grid in zip(samples, classes, strict=True):
            sample.set_field(grid, "pred_semantics")
        return list(samples)


def _stack(samples: Sequence[DrivingSample], name: str, shape: Sequence[int]) -> Tensor:
    """Return a field of all samples (B, X, Y, Z).

    Raises:
        ValueError: It is missing, or has another shape than the model's grid.
    """
    for sample in samples:
        got = tuple(sample.get(name).shape) if name in sample else None
        if got != tuple(shape):
            raise ValueError(
                f"OccupancyHead: expected {name} of shape {tuple(shape)} in frame "
                f"{sample.token}, got {got or 'none'}"
            )
    return torch.stack([sample.get(name) for sample in samples])
