"""Images of all cameras and frames as the network takes them.

Shapes: B batch, T frames, N cameras, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseDataPreprocessor
from mmengine.registry import MODELS
from torch import Tensor

from internimage.integrations.openmmlab.driving.sample import DrivingSample


@MODELS.register_module()
class BEVDataPreprocessor(BaseDataPreprocessor):
    """Normalise images and pad them with zeros, at the right and at the bottom.

    Args:
        mean: per channel, in the order after ``bgr_to_rgb``, of values 0-255.
        std: likewise.
        bgr_to_rgb: whether the channels change their order first.
        pad_size_divisor: height and width become multiples of it.
        grid_mask: in training, of :class:`GridMask`; None for no mask.
        non_blocking: of the copy to the device.

    Raises:
        ValueError: a number of channels is not 3, a deviation is not positive, or the divisor is
            below 1.
    """

    def __init__(
        self,
        mean: Sequence[float] = (123.675, 116.28, 103.53),
        std: Sequence[float] = (58.395, 57.12, 57.375),
        *,
        bgr_to_rgb: bool = True,
        pad_size_divisor: int = 32,
        grid_mask: dict[str, Any] | None = None,
        non_blocking: bool = False,
    ) -> None:
        super().__init__(non_blocking=non_blocking)
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0 or pad_size_divisor < 1:
            raise ValueError(
                "BEVDataPreprocessor: expected 3 means, 3 positive deviations and a divisor >= 1, "
                f"got {tuple(mean)}, {tuple(std)} and {pad_size_divisor}"
            )
        self.bgr_to_rgb, self.pad_size_divisor = bgr_to_rgb, pad_size_divisor
        self.grid_mask = None if grid_mask is None else GridMask(**grid_mask)
        # Not persistent: they come from the config, and released files do not have them.
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """Return the batch on the model's device.

        Args:
            data: ``inputs``, B tensors (T, N, 3, H, W), and ``data_samples``, B of them.
            training: whether the last frames are masked.

        Returns:
            ``inputs`` (B, T, N, 3, H, W) float32, and the samples with ``image_shape`` of the
            padded images and ``unpadded_shape`` in their meta data.

        Raises:
            ValueError: the samples' inputs differ in shape.
        """
        data = self.cast_data(data)
        inputs: Sequence[Tensor] = data["inputs"]
        samples: Sequence[DrivingSample] = data["data_samples"]
        shapes = {tuple(frames.shape) for frames in inputs}
        # One shape, of five axes, the third of which are the channels.
        if len(shapes) != 1 or [(len(shape), *shape[2:3]) for shape in shapes] != [(5, 3)]:
            raise ValueError(
                "BEVDataPreprocessor: expected inputs of one shape (T, N, 3, H, W), got "
                f"{sorted(shapes)}"
            )
        # (B, T, N, 3, H, W). Whole numbers become floats here, behind the copy, which is then a
        # quarter as large.
        images = torch.stack(list(inputs)).float()
        if self.bgr_to_rgb:
            images = images.flip(3)
        images = (images - self.mean) / self.std
        height, width = images.shape[-2:]
        # After the normalisation, so that the padding is the mean colour; at the right and the
        # bottom, so that no matrix changes. -n % d is what n lacks to a multiple of d.
        images = F.pad(
            images, (0, -width % self.pad_size_divisor, 0, -height % self.pad_size_divisor)
        )
        if training and self.grid_mask is not None:
            # The frames of history are encoded as in a test.
            images[:, -1] = self.grid_mask(images[:, -1])
        shape = (images.shape[-2], images.shape[-1])
        for sample in samples:
            sample.set_metainfo({"image_shape": shape, "unpadded_shape": (height, width)})
        return {"inputs": images, "data_samples": list(samples)}


class GridMask:
    """Cut squares of a regular grid out of images (GridMask, arXiv 2001.04086), unrotated.

    Period and offset are drawn anew for every batch, the same ones for all of its images.

    Args:
        prob: probability that anything is cut out.
        ratio: of a period that is kept between the squares.

    Raises:
        ValueError: one of them is not between 0 and 1.
    """

    def __init__(self, prob: float = 0.7, ratio: float = 0.5) -> None:
        if not 0 <= prob <= 1 or not 0 < ratio < 1:
            raise ValueError(
                f"GridMask: expected 0 <= prob <= 1 and 0 < ratio < 1, got {prob} and {ratio}"
            )
        self.prob, self.ratio = prob, ratio

    def __call__(self, images: Tensor) -> Tensor:
        """Return images (..., H, W) with zeros in the squares."""
        height, width = images.shape[-2:]
        if torch.rand(()).item() >= self.prob or height < 3:
            return images
        # From 2, because a period of 1 has no room for both parts; up to the height, as BEVFormer's
        # GridMask has it, whatever the width.
        period = int(torch.randint(2, height, ()))
        # int(x + 0.5), the original's: `round` has 2.5 down and 3.5 up.
        kept = min(max(int(period * self.ratio + 0.5), 1), period - 1)
        offset_y, offset_x = torch.randint(period, (2,)).tolist()
        rows = (torch.arange(height, device=images.device) - offset_y) % period < kept
        columns = (torch.arange(width, device=images.device) - offset_x) % period < kept
        # (H, W): what either a kept row or a kept column crosses stays, so that squares are left to
        # cut.
        return images * (rows[:, None] | columns)
