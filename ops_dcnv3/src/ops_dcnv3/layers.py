"""Layouts, norms and activations around channels-last layers; shared with the backbone.

Maps between layers are channels last, ``(N, H, W, C)``; a convolution sees the same memory as a
permuted view. A norm lives in an ``nn.Sequential`` with the permutes that it needs, whose index is
part of the released keys (``dw_conv.1.1.weight``).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Layout = Literal["channels_first", "channels_last"]
ActLayer = Literal["GELU", "ReLU", "SiLU"]
NormLayer = Literal["LN", "BN"]

NORM_EPS = 1e-6
"""Epsilon of every LayerNorm of the trunk, as released (PyTorch's default is 1e-5)."""

ACTIVATIONS: dict[ActLayer, type[nn.Module]] = {"GELU": nn.GELU, "ReLU": nn.ReLU, "SiLU": nn.SiLU}


def is_autocast_on(x: Tensor) -> bool:
    """Whether an autocast region is at work for the device of ``x``; the meta device has none."""
    return x.device.type != "meta" and torch.is_autocast_enabled(x.device.type)


def channels_first(x: Tensor) -> Tensor:
    """View ``(N, H, W, C)`` as ``(N, C, H, W)``, for a convolution.

    Where a compiler does not know H and W it is a copy: inductor of torch 2.13 cannot lower a
    convolution whose input is such a view (``ValueRangeError: Invalid ranges [0:-1]``). The copy
    can go when the compile tests of the backbone pass without it.
    """
    x = x.permute(0, 3, 1, 2)
    return x.contiguous() if torch.compiler.is_compiling() and not _has_fixed_size(x) else x


def _has_fixed_size(x: Tensor) -> bool:
    """Whether a compiler knows the sizes of the last two dimensions."""
    from torch.fx.experimental.symbolic_shapes import has_static_value  # slow to import

    return has_static_value(x.shape[-2]) and has_static_value(x.shape[-1])


class ToChannelsFirst(nn.Module):
    """View ``(N, H, W, C)`` as ``(N, C, H, W)``."""

    def forward(self, x: Tensor) -> Tensor:
        """Permute, without a copy but for a compiler that does not know H and W."""
        return channels_first(x)


class ToChannelsLast(nn.Module):
    """View ``(N, C, H, W)`` as ``(N, H, W, C)``."""

    def forward(self, x: Tensor) -> Tensor:
        """Permute without a copy."""
        return x.permute(0, 2, 3, 1)


def build_norm(
    channels: int,
    norm_layer: NormLayer = "LN",
    *,
    input_layout: Layout = "channels_last",
    output_layout: Layout = "channels_last",
    eps: float = NORM_EPS,
    function: str = "build_norm",
) -> nn.Sequential:
    """Build a norm with the permutes that it needs around it.

    Args:
        channels: C.
        norm_layer: ``"LN"`` or ``"BN"``.
        input_layout: layout of what comes in.
        output_layout: layout of what goes out.
        eps: epsilon of the LayerNorm. BatchNorm keeps PyTorch's default, as the released models do.
        function: whom the error names.

    Raises:
        ValueError: the norm is unknown.
    """
    layers: list[nn.Module] = []
    if norm_layer == "LN":
        if input_layout == "channels_first":
            layers.append(ToChannelsLast())
        layers.append(nn.LayerNorm(channels, eps=eps))
        if output_layout == "channels_first":
            layers.append(ToChannelsFirst())
    elif norm_layer == "BN":
        if input_layout == "channels_last":
            layers.append(ToChannelsFirst())
        layers.append(nn.BatchNorm2d(channels))
        if output_layout == "channels_last":
            layers.append(ToChannelsLast())
    else:
        raise ValueError(f"{function}: expected norm_layer = 'LN' or 'BN', got {norm_layer!r}")
    return nn.Sequential(*layers)


def build_activation(act_layer: ActLayer, *, function: str = "build_activation") -> nn.Module:
    """Build an activation by name.

    Args:
        act_layer: one of :data:`ACTIVATIONS`.
        function: whom the error names.

    Raises:
        ValueError: the name is none of :data:`ACTIVATIONS`.
    """
    if act_layer not in tuple(ACTIVATIONS):  # a list has no hash
        names = ", ".join(sorted(ACTIVATIONS))
        raise ValueError(f"{function}: expected act_layer in {{{names}}}, got {act_layer!r}")
    return ACTIVATIONS[act_layer]()
