"""InternImage with the MetaFormer head of iNaturalist 2018: an image, its time and its place.

Shape legend: N batch, H W image size in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from internimage.heads import init_linear
from internimage.model import InternImage

TEMPORAL_DIM = 4
"""Sine and cosine of the month, and of the hour."""
SPATIAL_DIM = 3
"""The place as a point of the unit sphere."""


class MetaEncoder(nn.Module):
    """A residual pair of linear layers over vectors (N, features)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.w1 = nn.Linear(features, features)
        self.norm_fn1 = nn.LayerNorm(features)
        self.w2 = nn.Linear(features, features)
        self.norm_fn2 = nn.LayerNorm(features)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, features) to the same shape."""
        y = self.norm_fn1(self.w1(x).relu())
        return x + self.norm_fn2(self.w2(y).relu())


class InternImageMetaFormer(InternImage):
    """The image's logits plus the logits of its time and place.

    Args:
        meta_dim: width of each of the two encoders.
        kwargs: as for :class:`InternImage`.

    Raises:
        ValueError: as for :class:`InternImage`, or ``features_only`` is asked for.
    """

    def __init__(self, *args: Any, meta_dim: int = 64, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.features_only:
            raise ValueError("InternImageMetaFormer: expected features_only = False, got True")
        self.meta_head_1 = _encoder(TEMPORAL_DIM, meta_dim)
        self.meta_head_2 = _encoder(SPATIAL_DIM, meta_dim)
        self.meta_norm = nn.LayerNorm(2 * meta_dim, eps=1e-6)
        self.meta_head: nn.Module = _meta_classifier(2 * meta_dim, self.num_classes)
        for module in [*self.meta_head_1.modules(), *self.meta_head_2.modules()]:
            if isinstance(module, nn.Linear):
                init_linear(module)

    def forward(self, x: Sequence[Tensor]) -> Tensor:  # type: ignore[override]
        """Classify.

        Args:
            x: images (N, 3, H, W), times (N, 4) and places (N, 3); zeros where unknown.

        Returns:
            Logits (N, num_classes).

        Raises:
            ValueError: not three tensors of these shapes.
        """
        if isinstance(x, Tensor) or len(x) != 3:
            got = tuple(x.shape) if isinstance(x, Tensor) else f"{len(x)} values"
            raise ValueError(
                f"InternImageMetaFormer.forward: expected (images, times, places), got {got}"
            )
        images, times, places = x
        n = images.shape[0]
        if times.shape != (n, TEMPORAL_DIM) or places.shape != (n, SPATIAL_DIM):
            raise ValueError(
                f"InternImageMetaFormer.forward: expected times ({n}, {TEMPORAL_DIM}) and places "
                f"({n}, {SPATIAL_DIM}), got {tuple(times.shape)} and {tuple(places.shape)}"
            )
        meta = torch.cat([self.meta_head_1(times), self.meta_head_2(places)], dim=-1)
        logits = self.forward_head(self.forward_features(images))
        return logits + self.meta_head(self.meta_norm(meta))

    def reset_classifier(self, num_classes: int) -> None:
        """Replace both last linear layers.

        Raises:
            ValueError: as for :meth:`InternImage.reset_classifier`, or ``num_classes`` is 0.
        """
        weight = self.meta_norm.weight
        meta_head = _meta_classifier(weight.shape[0], num_classes)
        super().reset_classifier(num_classes)
        self.meta_head = meta_head.to(weight.device, weight.dtype)


def with_unknown_meta(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Add the times (N, 4) and places (N, 3) that stand for unknown ones to images (N, 3, H, W)."""
    n = images.shape[0]
    return images, images.new_zeros(n, TEMPORAL_DIM), images.new_zeros(n, SPATIAL_DIM)


def _encoder(in_features: int, features: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(in_features, features),
        nn.ReLU(),
        nn.LayerNorm(features),
        MetaEncoder(features),
    )


def _meta_classifier(in_features: int, num_classes: int) -> nn.Linear:
    if num_classes < 1:
        # The two sets of logits are added, so there is nothing to return without them.
        raise ValueError(f"InternImageMetaFormer: expected num_classes >= 1, got {num_classes}")
    linear = nn.Linear(in_features, num_classes)
    init_linear(linear)
    return linear
