"""The parts of InternImage, small to large: layouts, norms, stem, downsampling, MLP, pooling.

Shape legend: N batch, H W input size in pixels, C channels, L tokens. Modules exchange
channels-last maps ``(N, H, W, C)``; a convolution sees the same memory as a permuted view.

Attribute names are a file format: released checkpoints hold them as keys. So a norm layer lives in
an ``nn.Sequential`` whose index depends on the layouts around it (``patch_embed.norm1.1.weight``).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ops_dcnv3.layers import ActLayer, NormLayer, build_activation, build_norm, channels_first


class DropPath(nn.Module):
    """Drop a residual branch for whole samples, at random, in training (Huang et al., 2016).

    Args:
        rate: probability of dropping, 0-1. What is kept is scaled by ``1 / (1 - rate)``.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Drop samples of ``x`` (N, ...)."""
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        drawn = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(keep)
        return x * (drawn / keep if keep > 0.0 else drawn)

    def extra_repr(self) -> str:
        """Show the rate."""
        return f"rate={self.rate:g}"


class Stem(nn.Module):
    """Two strided convolutions: ``(N, in_chans, H, W)`` to ``(N, ceil(H/4), ceil(W/4), C)``.

    "ceil(H/4)" stands for two roundings up, ``ceil(ceil(H/2)/2)``, here and in all that follows.
    """

    def __init__(
        self, in_chans: int, channels: int, *, act_layer: ActLayer, norm_layer: NormLayer
    ) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = nn.Conv2d(in_chans, half, kernel_size=3, stride=2, padding=1)
        self.norm1 = build_norm(
            half, norm_layer, input_layout="channels_first", output_layout="channels_first"
        )
        self.act = build_activation(act_layer)
        self.conv2 = nn.Conv2d(half, channels, kernel_size=3, stride=2, padding=1)
        self.norm2 = build_norm(channels, norm_layer, input_layout="channels_first")

    def forward(self, x: Tensor) -> Tensor:
        """Turn an image (N, in_chans, H, W) into a channels-last map."""
        x = self.act(self.norm1(self.conv1(x)))
        return self.norm2(self.conv2(x))


class Downsample(nn.Module):
    """Halve the size, double the channels: ``(N, H, W, C)`` to ``(N, H/2, W/2, 2C)``."""

    def __init__(self, channels: int, *, norm_layer: NormLayer) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            channels, 2 * channels, kernel_size=3, stride=2, padding=1, bias=False
        )
        self.norm = build_norm(2 * channels, norm_layer, input_layout="channels_first")

    def forward(self, x: Tensor) -> Tensor:
        """Downsample a channels-last map."""
        return self.norm(self.conv(channels_first(x)))


class Mlp(nn.Module):
    """Two linear layers with an activation between, over the last dimension (size C)."""

    def __init__(
        self, channels: int, hidden: int, *, act_layer: ActLayer, drop_rate: float
    ) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.act = build_activation(act_layer)
        self.fc2 = nn.Linear(hidden, channels)
        self.drop = nn.Dropout(drop_rate)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C) to (..., C)."""
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))


class CrossAttention(nn.Module):
    """Multi-head attention with separate inputs for query, key and value.

    The biases are parameters of their own beside bias-free linears, because released checkpoints
    hold them so.
    """

    def __init__(self, channels: int, *, num_heads: int, out_channels: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q = nn.Linear(channels, channels, bias=False)
        self.k = nn.Linear(channels, channels, bias=False)
        self.v = nn.Linear(channels, channels, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(channels))
        self.k_bias = nn.Parameter(torch.zeros(channels))
        self.v_bias = nn.Parameter(torch.zeros(channels))
        self.proj = nn.Linear(channels, out_channels)

    def _heads(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Project (N, L, C) and split it into heads: (N, heads, L, C / heads)."""
        return F.linear(x, weight, bias).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend from (N, Lq, C) to ``key`` and ``value`` (N, L, C); return (N, Lq, out)."""
        q = self._heads(query, self.q.weight, self.q_bias)
        k = self._heads(key, self.k.weight, self.k_bias)
        v = self._heads(value, self.v.weight, self.v_bias)
        y = F.scaled_dot_product_attention(q, k, v)
        return self.proj(y.transpose(1, 2).flatten(2))


class AttentionPool(nn.Module):
    """Pool tokens (N, L, C) into one vector (N, out_channels): their mean asks, all of them answer.

    There is no residual connection and no position embedding, so any number of tokens will do.
    """

    def __init__(self, channels: int, *, num_heads: int, out_channels: int) -> None:
        super().__init__()
        self.norm1_q = build_norm(channels)
        self.norm1_k = build_norm(channels)
        self.norm1_v = build_norm(channels)
        self.cross_dcn = CrossAttention(channels, num_heads=num_heads, out_channels=out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Pool (N, L, C)."""
        query = self.norm1_q(x.mean(dim=1, keepdim=True))
        return self.cross_dcn(query, self.norm1_k(x), self.norm1_v(x)).squeeze(1)
