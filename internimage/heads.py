"""The parts of the two heads: the plain one, and the CLIP projector of InternImage-H and -G.

Shape legend: N batch, H W size of the last stage's map, C its channels. The parts are attributes of
the model itself, under the names of the released keys.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from torch import nn

from internimage.architecture import check_int, check_ratio
from internimage.layers import AttentionPool
from ops_dcnv3.layers import ActLayer, build_activation, build_norm

NUM_CLASSES = 1000
"""Of ImageNet-1k, which most of the released classifiers are for."""

CLS_SCALE = 1.5
"""Channels of the plain head over C, as released."""

PROJECTOR_CHANNELS = 1024
PROJECTOR_HEADS = 16
PROJECTOR_OUT_CHANNELS = 768
PROJECTOR_STRIDE = 32
"""The CLIP-projector head; height and width of the image must be multiples of the last."""

HEAD_PREFIXES = (
    "conv_head.",
    "dcnv3_head_x3.",
    "dcnv3_head_x4.",
    "clip_projector.",
    "fc_norm.",
    "head.",
)
"""Keys that exist in a classifier and not in a backbone made with ``features_only``."""


def check_head(
    widths: Sequence[int],
    num_classes: int,
    cls_scale: float,
    features_only: bool,
    use_clip_projector: bool,
) -> None:
    """Check the arguments of ``InternImage`` that make its head; warn of those without effect.

    Args:
        widths: channels of each stage.
        num_classes: as for ``InternImage``, and so the rest.
        cls_scale: see there.
        features_only: see there.
        use_clip_projector: see there.

    Raises:
        TypeError: a number is none.
        ValueError: a number is out of range, or the projector has one stage alone to project.
    """
    check_int("InternImage", "num_classes", num_classes, least=0)
    check_ratio("cls_scale", cls_scale, widths[-1])
    if use_clip_projector and len(widths) < 2:
        raise ValueError(
            f"InternImage: expected at least two stages for use_clip_projector, got {len(widths)}"
        )
    if cls_scale != CLS_SCALE and (features_only or use_clip_projector):
        beside = "features_only" if features_only else "use_clip_projector"
        warnings.warn(f"InternImage: cls_scale has no effect beside {beside}", stacklevel=3)
    if num_classes not in (0, NUM_CLASSES) and features_only:
        warnings.warn("InternImage: num_classes has no effect beside features_only", stacklevel=3)


def build_conv_head(channels: int, out_channels: int, act_layer: ActLayer) -> nn.Sequential:
    """Build what the plain head does before it pools: (N, C, H, W) to (N, out_channels, H, W)."""
    return nn.Sequential(
        nn.Conv2d(channels, out_channels, kernel_size=1, bias=False),
        build_norm(
            out_channels, "BN", input_layout="channels_first", output_layout="channels_first"
        ),
        build_activation(act_layer),
    )


def build_projector_x4(channels: int) -> nn.Sequential:
    """Build the way of the last stage into the projector: (N, C, H, W) to (N, 1024, 2H, 2W)."""
    return nn.Sequential(
        nn.Conv2d(channels, 4 * PROJECTOR_CHANNELS, kernel_size=1), nn.PixelShuffle(2)
    )


def build_projector_x3(channels: int) -> nn.Conv2d:
    """Build the way of the stage before it: (N, C/2, 2H, 2W) to (N, 1024, 2H, 2W)."""
    return nn.Conv2d(channels // 2, PROJECTOR_CHANNELS, kernel_size=1)


def build_projector() -> AttentionPool:
    """Build the pooling of 2H * 2W tokens: (N, tokens, 1024) to (N, 768)."""
    return AttentionPool(
        PROJECTOR_CHANNELS, num_heads=PROJECTOR_HEADS, out_channels=PROJECTOR_OUT_CHANNELS
    )


def build_classifier(in_features: int, num_classes: int) -> nn.Module:
    """Build the last linear layer; ``nn.Identity`` for no classes."""
    return nn.Linear(in_features, num_classes) if num_classes else nn.Identity()


def init_linear(linear: nn.Linear) -> None:
    """Draw a linear layer as the released models were: truncated normal of 0.02, no bias."""
    nn.init.trunc_normal_(linear.weight, std=0.02)
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)
