"""Decoder layers over sequences that keep what they computed of earlier positions.

P sequences, L positions, B images with S cells each, E channels, h heads, D = E / h.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """The projections of multi-head attention, apart, so that keys and values can be kept.

    Args:
        embed_dims: E.
        num_heads: h.
        dropout_rate: of the attention weights.

    Raises:
        ValueError: the heads do not share the channels evenly.
    """

    def __init__(self, embed_dims: int, num_heads: int, dropout_rate: float) -> None:
        super().__init__()
        if embed_dims % num_heads:
            raise ValueError(
                f"Attention: expected embed_dims to be a multiple of num_heads = {num_heads}, got "
                f"{embed_dims}"
            )
        self.num_heads = num_heads
        self.dropout_rate = dropout_rate
        # One matrix for all three, as torch's MultiheadAttention and so the released file have it.
        self.in_proj = nn.Linear(embed_dims, 3 * embed_dims)
        self.out_proj = nn.Linear(embed_dims, embed_dims)

    def project(self, rows: Tensor, first: int, last: int) -> list[Tensor]:
        """Return some of query, key and value (0, 1, 2) of rows (P, L, E), (P, h, L, D) each."""
        size = rows.shape[-1]
        part = slice(first * size, last * size)
        # (P, L, parts E); the weights of query, key and value are rows of one matrix.
        projected = F.linear(rows, self.in_proj.weight[part], self.in_proj.bias[part])
        return [
            values.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for values in projected.split(size, dim=-1)
        ]

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """Return (P, L, E), what queries find where the mask (L, L') is true."""
        dropout = self.dropout_rate if self.training else 0.0  # the function knows no mode
        # (P, h, L, D); a mask says what may be seen, as scaled_dot_product_attention has it.
        found = F.scaled_dot_product_attention(query, key, value, mask, dropout)
        return self.out_proj(found.transpose(1, 2).flatten(2))  # (P, h, L, D) to (P, L, E)


class LayerCache:
    """Keys and values (P, h, L, D) of one layer, and those of the images' cells.

    Args:
        memory: for each image, key and value (1, h, S, D).
    """

    def __init__(self, memory: list[tuple[Tensor, Tensor]]) -> None:
        self.memory = memory
        self._past: tuple[Tensor, Tensor] | None = None

    def extend(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Return all keys and values so far, these included."""
        if self._past is not None:
            # Copied each time: polylines are short, and those that end leave the batch.
            key = torch.cat([self._past[0], key], dim=2)
            value = torch.cat([self._past[1], value], dim=2)
        self._past = key, value
        return key, value

    def keep(self, rows: Tensor) -> None:
        """Forget all sequences but those that ``rows`` names."""
        if self._past is not None:
            self._past = self._past[0][rows], self._past[1][rows]


class SequenceLayer(nn.Module):
    """Self-attention, attention to the cells and a feed-forward network, each behind its norm.

    A scalar that starts at 0 weighs each of the three (ReZero, arXiv 2003.04887), so that a layer
    begins as the identity.

    Args:
        embed_dims: E.
        num_heads: of both attentions.
        feedforward_channels: of the network's hidden layer.
        dropout_rate: of all three.
    """

    def __init__(
        self, embed_dims: int, *, num_heads: int, feedforward_channels: int, dropout_rate: float
    ) -> None:
        super().__init__()
        self.self_attn = Attention(embed_dims, num_heads, dropout_rate)
        self.cross_attn = Attention(embed_dims, num_heads, dropout_rate)
        self.linear1 = nn.Linear(embed_dims, feedforward_channels)
        self.linear2 = nn.Linear(feedforward_channels, embed_dims)
        self.norm1 = nn.LayerNorm(embed_dims)
        self.norm2 = nn.LayerNorm(embed_dims)
        self.norm3 = nn.LayerNorm(embed_dims)
        # Three numbers, not a list: names of the released weights.
        self.res_weight1 = nn.Parameter(torch.zeros(1))
        self.res_weight2 = nn.Parameter(torch.zeros(1))
        self.res_weight3 = nn.Parameter(torch.zeros(1))
        self.dropout = nn.Dropout(dropout_rate)

    def start(self, cells: Tensor) -> LayerCache:
        """Return an empty cache for sequences over the cells (B, S, E) of images."""
        key, value = self.cross_attn.project(cells, 1, 3)
        # Once an image, not once a step: the cells do not change while lines are written.
        return LayerCache(list(zip(key.split(1), value.split(1), strict=True)))

    def forward(
        self, rows: Tensor, cache: LayerCache, counts: Sequence[int], mask: Tensor | None
    ) -> Tensor:
        """Return the next rows (P, L, E) of the positions behind those of the cache.

        Args:
            rows: (P, L, E), those of an image beside each other.
            cache: of this layer; grows by the L positions.
            counts: how many of the P sequences each image has.
            mask: (L, cached + L) bool, whether a position sees another; None: it sees all.
        """
        # Norms stand before, and only over the rows: the cells come as they are.
        query, key, value = self.self_attn.project(self.norm1(rows), 0, 3)
        found = self.self_attn.attend(query, *cache.extend(key, value), mask)
        rows = rows + self.res_weight1 * self.dropout(found)
        rows = rows + self.res_weight2 * self.dropout(
            self._look(self.norm2(rows), cache.memory, counts)
        )
        hidden = self.dropout(self.linear1(self.norm3(rows)).relu())
        return rows + self.res_weight3 * self.dropout(self.linear2(hidden))

    def _look(
        self, rows: Tensor, memory: list[tuple[Tensor, Tensor]], counts: Sequence[int]
    ) -> Tensor:
        """Attend to the cells, image by image: keys are not repeated for every sequence."""
        found = []
        for part, (key, value) in zip(rows.split(list(counts)), memory, strict=True):
            # (1, h, sequences L, D): all positions of an image ask beside each other.
            (query,) = self.cross_attn.project(part.flatten(0, 1)[None], 0, 1)
            attended = self.cross_attn.attend(query, key, value, None)
            found.append(attended.unflatten(1, (-1, rows.shape[1]))[0])
        return torch.cat(found)
