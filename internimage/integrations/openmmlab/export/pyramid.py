"""What every detector begins with."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class Pyramid(nn.Module):
    """A detector's backbone and neck.

    Args:
        model: of mmdet.
        blue_first: whether the model sees blue, green, red; images come as red, green, blue.
    """

    def __init__(self, model: Any, *, blue_first: bool) -> None:
        super().__init__()
        self.backbone = model.backbone
        self.neck = model.neck
        self._blue_first = blue_first

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the pyramid's maps (N, C, h, w) of images (N, 3, H, W), finest first."""
        if self._blue_first:
            images = images.flip(1)  # in the graph, so that all files take red, green, blue
        return tuple(self.neck(self.backbone(images)))
