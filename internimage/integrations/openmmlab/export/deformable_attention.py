"""Multi-scale deformable attention that torch.export can follow at any size.

mmcv keeps the sizes of the maps in a tensor, from which they would be read while tracing.

Shape legend: N batch, Q queries, V values of all maps together, L maps (levels), P points a head
and map, M heads, E channels, D = E / M channels a head, H W of a map.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.ops import MultiScaleDeformableAttention
from torch import Tensor, nn

Sizes = Sequence[tuple[int, int]]
"""(H, W) of each map; symbolic ones while tracing."""


class TracedDeformableAttention(nn.Module):
    """mmcv's ``MultiScaleDeformableAttention`` with the sizes of the maps as numbers.

    Locations and sums of products are float32 even in a half model.

    Args:
        attention: whose parameters it takes.
    """

    def __init__(self, attention: MultiScaleDeformableAttention) -> None:
        super().__init__()
        self.sampling_offsets = attention.sampling_offsets
        self.attention_weights = attention.attention_weights
        self.value_proj = attention.value_proj
        self.output_proj = attention.output_proj
        self.num_heads = attention.num_heads
        self.num_levels = attention.num_levels
        self.num_points = attention.num_points
        self.batch_first = attention.batch_first

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        identity: Tensor | None = None,
        query_pos: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
        reference_points: Tensor | None = None,
        spatial_shapes: Sizes = (),
        **unused: Any,
    ) -> Tensor:
        """Return (N, Q, E), or (Q, N, E) where the batch is not first, as the queries are.

        Args:
            query: (N, Q, E) or (Q, N, E).
            key: not looked at.
            value: (N, V, E) or (V, N, E); None takes ``query``.
            identity: what is added to the output; None adds ``query``.
            query_pos: added to the queries.
            key_padding_mask: (N, V), true where there is nothing.
            reference_points: (N, Q, L, 2) x and y, or (N, Q, L, 4) with width and height, 0-1.
            spatial_shapes: of the L maps.
            **unused: what mmcv's takes and does not need either.
        """
        assert reference_points is not None  # every transformer gives them
        # Both before the positions are added, as in mmcv. Its dropout does nothing in evaluation.
        value = query if value is None else value
        identity = query if identity is None else identity
        query = query if query_pos is None else query + query_pos
        if not self.batch_first:
            query, value = query.transpose(0, 1), value.transpose(0, 1)
        N, queries = query.shape[:2]
        value = self.value_proj(value)
        # After the projection, whose bias would otherwise be sampled from the padding.
        if key_padding_mask is not None:
            value = value.masked_fill(key_padding_mask[..., None], 0.0)
        points = (self.num_levels, self.num_points)
        offsets = self.sampling_offsets(query).float().view(N, queries, self.num_heads, *points, 2)
        weights = (
            self.attention_weights(query).float().view(N, queries, self.num_heads, -1).softmax(-1)
        )  # (N, Q, M, L P): one distribution over the points of all maps
        locations = _locations(reference_points.float(), offsets, spatial_shapes)
        found = sample_maps(
            value.unflatten(-1, (self.num_heads, -1)).float(),  # (N, V, M, D)
            spatial_shapes,
            locations,
            weights.view(N, queries, self.num_heads, *points),
        )
        output = self.output_proj(found.to(identity.dtype))
        output = output if self.batch_first else output.transpose(0, 1)
        return output + identity


def replace_attention(model: nn.Module) -> None:
    """Put a :class:`TracedDeformableAttention` in the place of every one of mmcv's in a model."""
    for name, module in list(model.named_modules()):
        if isinstance(module, MultiScaleDeformableAttention):
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, TracedDeformableAttention(module))


def sample_maps(value: Tensor, sizes: Sizes, locations: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted sums (N, Q, E) of what is sampled from all maps.

    Args:
        value: (N, V, M, D), the maps behind one another.
        sizes: of the L maps.
        locations: (N, Q, M, L, P, 2), x and y, 0-1 within a map.
        weights: (N, Q, M, L, P).
    """
    N, queries, heads, _, P = weights.shape
    D = value.shape[-1]
    grids = 2 * locations - 1  # grid_sample counts from -1 to 1, edge to edge of the map
    maps = value.split([height * width for height, width in sizes], dim=1)
    sampled = []
    for level, (height, width) in enumerate(sizes):
        # (N, H W, M, D) -> (N M, D, H, W)
        image = maps[level].permute(0, 2, 3, 1).reshape(N * heads, D, height, width)
        # (N, Q, M, P, 2) -> (N M, Q, P, 2)
        grid = grids[:, :, :, level].transpose(1, 2).reshape(N * heads, queries, P, 2)
        sampled.append(
            F.grid_sample(
                image, grid, mode="bilinear", padding_mode="zeros", align_corners=False
            )  # (N M, D, Q, P)
        )
    # (N, Q, M, L, P) -> (N M, 1, Q, L P)
    spread = weights.transpose(1, 2).reshape(N * heads, 1, queries, -1)
    found = (torch.cat(sampled, dim=-1) * spread).sum(-1)  # (N M, D, Q)
    return found.reshape(N, heads * D, queries).transpose(1, 2)


def _locations(reference_points: Tensor, offsets: Tensor, sizes: Sizes) -> Tensor:
    """Return where to sample, (N, Q, M, L, P, 2), 0-1.

    Args:
        reference_points: (N, Q, L, 2) or (N, Q, L, 4).
        offsets: (N, Q, M, L, P, 2); of points in pixels of a map, of boxes in halves of their sides
            over P.
        sizes: of the L maps.
    """
    centres = reference_points[:, :, None, :, None, :2]  # (N, Q, 1, L, 1, 2)
    if reference_points.shape[-1] == 2:
        pixels = [torch.stack([as_tensor(width), as_tensor(height)]) for height, width in sizes]
        # (L, 2) -> (1, 1, 1, L, 1, 2)
        return centres + offsets / torch.stack(pixels)[None, None, None, :, None, :]
    sides = reference_points[:, :, None, :, None, 2:]
    return centres + offsets / offsets.shape[-2] * sides * 0.5


def pixel_centres(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Return y and x (1, height * width) of a map's pixels, pixels."""
    # arange, where mmdet has linspace, which ONNX can only compute from arange.
    y = (torch.arange(height) + 0.5)[:, None].expand(-1, width)
    x = (torch.arange(width) + 0.5)[None, :].expand(height, -1)
    return y.reshape(1, -1), x.reshape(1, -1)


def as_tensor(number: int) -> Tensor:
    """Return a size, symbolic while tracing, as a number in float32."""
    # torch.tensor(number) would be a constant of the traced size.
    return torch.full((), number, dtype=torch.float32)
