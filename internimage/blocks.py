"""The InternImage block and stage: DCNv3 and an MLP, each on a residual branch.

Shape legend: N batch, H W map size in pixels, C channels, G groups. All maps are channels last,
``(N, H, W, C)``.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from internimage.architecture import check_int, check_number
from internimage.layers import Downsample, DropPath, Mlp
from ops_dcnv3 import modules as dcnv3_modules
from ops_dcnv3.layers import ActLayer, NormLayer, build_norm

CoreOp = Literal["DCNv3", "DCNv3_pytorch"]
CORE_OPS: tuple[CoreOp, ...] = get_args(CoreOp)
"""Operator modules by the names that configs use; the second always runs the plain PyTorch path."""

NormOrder = Literal["pre", "post", "res_post"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockSettings:
    """What all blocks of a model share, under the names of the constructor of ``InternImage``.

    Raises:
        TypeError: a value is of another kind.
        ValueError: a value is out of range.
    """

    core_op: CoreOp
    mlp_ratio: float
    drop_rate: float
    act_layer: ActLayer
    norm_layer: NormLayer
    layer_scale: float | None
    offset_scale: float
    post_norm: bool
    res_post_norm: bool
    dw_kernel_size: int | None
    center_feature_scale: bool
    remove_center: bool

    def __post_init__(self) -> None:
        if self.core_op not in CORE_OPS:
            raise ValueError(
                f"InternImage: expected core_op in {{{', '.join(CORE_OPS)}}}, got {self.core_op!r}"
            )
        size = self.dw_kernel_size
        if size is not None and check_int("InternImage", "dw_kernel_size", size, least=1) % 2 == 0:
            raise ValueError(f"InternImage: expected dw_kernel_size = None or odd, got {size}")
        if self.layer_scale is not None:
            check_number("layer_scale", self.layer_scale)
        check_number("offset_scale", self.offset_scale)
        if self.res_post_norm and (self.post_norm or self.layer_scale is not None):
            # The original accepts the combination and has no such branch: post_norm wins,
            # layer_scale too.
            winner = "post_norm" if self.post_norm else "layer_scale"
            warnings.warn(f"InternImage: res_post_norm has no effect beside {winner}", stacklevel=4)

    @property
    def norm_order(self) -> NormOrder:
        """Where the norms of a branch sit."""
        if self.post_norm:
            return "post"
        return "res_post" if self.res_post_norm and self.layer_scale is None else "pre"

    @property
    def has_stage_norm(self) -> bool:
        """Whether a stage ends in a norm of its own."""
        return not self.post_norm or self.center_feature_scale


class InternImageBlock(nn.Module):
    """One block: two residual branches.

    With f a branch (DCNv3, then the MLP), n and r norms, g the layer scale::

        pre:       x + g * f(n(x))
        post:      x + g * n(f(x))
        res_post:  x + r(f(n(x)))

    Args:
        channels: C.
        groups: G; must divide C.
        drop_path_rate: stochastic depth of this block, 0-1.
        settings: what all blocks share.
        with_cp: recompute the block in the backward pass instead of keeping its activations.
    """

    def __init__(
        self,
        channels: int,
        groups: int,
        *,
        drop_path_rate: float,
        settings: BlockSettings,
        with_cp: bool,
    ) -> None:
        super().__init__()
        self.norm_order = settings.norm_order
        self.with_cp = with_cp
        self.norm1 = build_norm(channels)
        self.dcn = getattr(dcnv3_modules, settings.core_op)(
            channels=channels,
            kernel_size=3,
            dw_kernel_size=settings.dw_kernel_size,
            stride=1,
            pad=1,
            dilation=1,
            group=groups,
            offset_scale=settings.offset_scale,
            act_layer=settings.act_layer,
            norm_layer=settings.norm_layer,
            center_feature_scale=settings.center_feature_scale,
            remove_center=settings.remove_center,
        )
        self.drop_path = DropPath(drop_path_rate)
        self.norm2 = build_norm(channels)
        self.mlp = Mlp(
            channels,
            int(channels * settings.mlp_ratio),
            act_layer=settings.act_layer,
            drop_rate=settings.drop_rate,
        )
        self.gamma1: nn.Parameter | None = None
        self.gamma2: nn.Parameter | None = None
        if settings.layer_scale is not None:
            self.gamma1 = nn.Parameter(torch.full((channels,), float(settings.layer_scale)))
            self.gamma2 = nn.Parameter(torch.full((channels,), float(settings.layer_scale)))
        if self.norm_order == "res_post":
            self.res_post_norm1 = build_norm(channels)
            self.res_post_norm2 = build_norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, H, W, C) to the same shape."""
        if self.with_cp and torch.is_grad_enabled():
            # Not the reentrant kind: that one loses all gradients when the block's input needs
            # none.
            return checkpoint(self._forward, x, use_reentrant=False)
        return self._forward(x)

    def _forward(self, x: Tensor) -> Tensor:
        if self.norm_order == "post":
            x = x + self._drop(self.norm1(self.dcn(x)), self.gamma1)
            return x + self._drop(self.norm2(self.mlp(x)), self.gamma2)
        if self.norm_order == "res_post":
            x = x + self._drop(self.res_post_norm1(self.dcn(self.norm1(x))), None)
            return x + self._drop(self.res_post_norm2(self.mlp(self.norm2(x))), None)
        x = x + self._drop(self.dcn(self.norm1(x)), self.gamma1)
        return x + self._drop(self.mlp(self.norm2(x)), self.gamma2)

    def _drop(self, branch: Tensor, gamma: Tensor | None) -> Tensor:
        return self.drop_path(branch if gamma is None else gamma * branch)


class InternImageStage(nn.Module):
    """Blocks of one width, the norm that ends them where there is one, and the way down.

    ``forward`` returns the map that a dense head or the next stage's ``downsample`` takes; the
    model calls ``downsample`` itself, so that it can stop at the last stage that is wanted.

    Args:
        channels: C.
        groups: G.
        drop_path_rates: stochastic depth, one rate a block.
        settings: what all blocks share.
        downsample: whether a stage follows.
        post_norm_block_ids: blocks after which the trunk itself is normalised (InternImage-H and
            -G).
        with_cp: gradient checkpointing, block by block.
    """

    def __init__(
        self,
        channels: int,
        groups: int,
        *,
        drop_path_rates: Sequence[float],
        settings: BlockSettings,
        downsample: bool,
        post_norm_block_ids: Sequence[int],
        with_cp: bool,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            InternImageBlock(
                channels, groups, drop_path_rate=rate, settings=settings, with_cp=with_cp
            )
            for rate in drop_path_rates
        )
        self.norm = build_norm(channels) if settings.has_stage_norm else None
        self.post_norm_block_ids = tuple(post_norm_block_ids)
        if self.post_norm_block_ids:
            self.post_norms = nn.ModuleList(build_norm(channels) for _ in self.post_norm_block_ids)
        self.downsample = (
            Downsample(channels, norm_layer=settings.norm_layer) if downsample else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, H, W, C) to the same shape."""
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.post_norm_block_ids:
                x = self.post_norms[self.post_norm_block_ids.index(index)](x)
        return x if self.norm is None else self.norm(x)
