"""The two attentions of BEVFormer (arXiv 2203.17270): over time and into the cameras.

Shapes: B batch, Q = H W cells (queries), C channels, N cameras, D points of a pillar, L levels,
P sampling points a head and level, K pixels of all levels of a camera, M queries that a camera
sees at most.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from mmcv.ops.multi_scale_deform_attn import (
    MultiScaleDeformableAttnFunction,
    multi_scale_deformable_attn_pytorch,
)
from mmengine.model import constant_init, xavier_init
from torch import Tensor, nn

_SAMPLED_AT_ONCE = 2**24
"""Numbers that the CPU samples in one step, 64 MiB, if one row of the batch has no more."""


class ImageFeatures(NamedTuple):
    """Feature maps of all cameras, level after level."""

    values: Tensor
    """(B, N, K, C)."""

    shapes: list[tuple[int, int]]
    """(h, w) of each level."""


class SeenQueries(NamedTuple):
    """Which queries each camera attends for."""

    cells: Tensor
    """(B, N, M) int64: cells, each at most once a camera."""

    seen: Tensor
    """(B, N, M) bool: whether the camera sees that cell; the others fill the rows up."""


def gather_seen(seen: Tensor) -> SeenQueries:
    """Put the cells that each camera sees first, and leave out those that no row needs.

    Args:
        seen: (B, N, Q) bool.
    """
    # Rows for the camera that sees most, 9858 of 40000 cells with nuScenes' six: that saves most of
    # the memory. At least one, so that the parameters are used whatever the cameras see.
    rows = max(int(seen.sum(dim=-1).max()), 1)
    index = torch.argsort((~seen).to(torch.uint8), dim=-1, stable=True)[..., :rows]
    return SeenQueries(index, seen.gather(-1, index))


class TemporalSelfAttention(nn.Module):
    """Attention of each cell to its surroundings, in the view before and in the current one.

    Deformable attention over two slots, history and current, whose results are averaged. A cell
    without history finds itself in both.

    Args:
        embed_dims: C.
        num_heads: heads; a divisor of C.
        num_points: P.
        dropout: probability, of the result.
        double_value_projection: project the values twice, as the original's OpenLane-V2 models
            were trained; for their checkpoints only.

    Raises:
        ValueError: C is no multiple of the heads.
    """

    def __init__(
        self,
        embed_dims: int = 256,
        *,
        num_heads: int = 8,
        num_points: int = 4,
        dropout: float = 0.1,
        double_value_projection: bool = False,
    ) -> None:
        super().__init__()
        _check_heads("TemporalSelfAttention", embed_dims, num_heads)
        self.num_heads, self.num_points = num_heads, num_points
        self.double_value_projection = double_value_projection
        samples = 2 * num_heads * num_points  # 2: history and the current view
        # 2 C in: history and query beside each other, section 3.4. 2 out a sample: x and y.
        self.sampling_offsets = nn.Linear(2 * embed_dims, 2 * samples)
        self.attention_weights = nn.Linear(2 * embed_dims, samples)
        self.value_proj = nn.Linear(embed_dims, embed_dims)
        self.output_proj = nn.Linear(embed_dims, embed_dims)
        self.dropout = nn.Dropout(dropout)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start with rings of points around each cell, which all weigh the same."""
        directions = _head_directions(self.num_heads)[:, None, None]
        _init_sampling(self, directions.expand(-1, 2, self.num_points, -1))
        xavier_init(self.output_proj, distribution="uniform")

    def forward(
        self,
        query: Tensor,
        position: Tensor,
        slots: Tensor,
        reference: Tensor,
        shape: tuple[int, int],
    ) -> Tensor:
        """Attend and add the result to the query.

        Args:
            query: (B, Q, C).
            position: (B or 1, Q, C), the code of the cells' places.
            slots: (B, 2, Q, C), what is seen in history and now.
            reference: (B, 2, Q, 2), where each cell looks in each slot, fractions (x, y).
            shape: (H, W).

        Returns:
            (B, Q, C).
        """
        batch, count, channels = query.shape
        heads, points = self.num_heads, self.num_points
        # What the offsets depend on is the history as it is, before any projection.
        context = torch.cat([slots[:, 0], query + position], dim=-1)
        # Heads before slots: the order of the released weights' rows. Each slot has a softmax of
        # its own, so that history and present weigh the same.
        offsets = self.sampling_offsets(context).view(batch, count, heads, 2, points, 2)
        weights = self.attention_weights(context).view(batch, count, heads, 2, points).softmax(-1)
        value = self.value_proj(slots)
        # For as long as the released OpenLane-V2 weights are to be evaluated.
        if self.double_value_projection:
            value = self.value_proj(value)
        # Offsets are learned in cells; locations are fractions of the view.
        sizes = offsets.new_tensor([shape[1], shape[0]])
        # (B, Q, heads, slots, P, 2) here, (B slots, Q, heads, one level, P, 2) in the call
        locations = reference.transpose(1, 2)[:, :, None, :, None] + offsets / sizes
        sampled = deformable_attention(
            value.view(batch * 2, count, heads, channels // heads),
            [shape],
            locations.permute(0, 3, 1, 2, 4, 5).flatten(0, 1)[:, :, :, None],
            weights.permute(0, 3, 1, 2, 4).flatten(0, 1)[:, :, :, None],
        )
        # Equation 5 sums; BEVFormer's code, and so the released weights, average.
        averaged = sampled.view(batch, 2, count, channels).mean(dim=1)  # over the slots
        return query + self.dropout(self.output_proj(averaged))


class PillarAttention(nn.Module):
    """Deformable attention of gathered queries into the feature maps of one camera.

    The P sampling points of a level are shared out among the D points of a pillar: point p starts
    at pillar point p mod D.

    Args:
        embed_dims: C.
        num_heads: heads; a divisor of C.
        num_levels: L.
        num_points: P.

    Raises:
        ValueError: C is no multiple of the heads.
    """

    def __init__(
        self,
        embed_dims: int = 256,
        *,
        num_heads: int = 8,
        num_levels: int = 4,
        num_points: int = 8,
    ) -> None:
        super().__init__()
        _check_heads("PillarAttention", embed_dims, num_heads)
        self.num_heads, self.num_levels, self.num_points = num_heads, num_levels, num_points
        samples = num_heads * num_levels * num_points
        self.sampling_offsets = nn.Linear(embed_dims, 2 * samples)
        self.attention_weights = nn.Linear(embed_dims, samples)
        # No projection of the result: that is the caller's, once for the mean of all cameras.
        self.value_proj = nn.Linear(embed_dims, embed_dims)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start with rings of points around each pillar point, which all weigh the same."""
        directions = _head_directions(self.num_heads)[:, None, None]
        _init_sampling(self, directions.expand(-1, self.num_levels, self.num_points, -1))

    def forward(
        self,
        query: Tensor,
        values: Tensor,
        reference: Tensor,
        shapes: list[tuple[int, int]],
    ) -> Tensor:
        """Attend, camera by camera.

        Args:
            query: (B N, M, C).
            values: (B N, K, C).
            reference: (B N, M, D, 2), the pillar points in the image, fractions (x, y).
            shapes: (h, w) of each level.

        Returns:
            (B N, M, C).
        """
        rows, count, channels = query.shape
        heads, levels, points = self.num_heads, self.num_levels, self.num_points
        anchors = reference.shape[2]
        offsets = self.sampling_offsets(query)
        # Point p is (group, pillar point) with the pillar point the faster index: the released
        # weights are laid out so.
        offsets = offsets.view(rows, count, heads, levels, points // anchors, anchors, 2)
        # One softmax over all levels: how large a pillar is in an image decides which level says
        # most.
        weights = self.attention_weights(query).view(rows, count, heads, levels * points)
        weights = weights.softmax(-1).view(rows, count, heads, levels, points)
        # (L, 2), x before y as in a location.
        sizes = offsets.new_tensor([(width, height) for height, width in shapes])
        # (B N, M, 1, 1, 1, D, 2) + (B N, M, heads, L, P / D, D, 2)
        locations = reference[:, :, None, None, None] + offsets / sizes[:, None, None]
        # (B N, K, heads, C / heads)
        value = self.value_proj(values).view(rows, -1, heads, channels // heads)
        return deformable_attention(value, shapes, locations.flatten(4, 5), weights)


class SpatialCrossAttention(nn.Module):
    """Attention of each cell into the images of the cameras that see its pillar.

    Args:
        embed_dims: C.
        num_heads: heads; a divisor of C.
        num_levels: L.
        num_points: P, a multiple of ``num_pillar_points``.
        num_pillar_points: D.
        dropout: probability, of the result.

    Raises:
        ValueError: one number is no multiple of the other.
    """

    def __init__(
        self,
        embed_dims: int = 256,
        *,
        num_heads: int = 8,
        num_levels: int = 4,
        num_points: int = 8,
        num_pillar_points: int = 8,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if num_pillar_points < 1 or num_points % num_pillar_points:
            raise ValueError(
                "SpatialCrossAttention: expected num_points to be a multiple of num_pillar_points, "
                f"got {num_points} and {num_pillar_points}"
            )
        self.deformable_attention = PillarAttention(
            embed_dims, num_heads=num_heads, num_levels=num_levels, num_points=num_points
        )
        self.output_proj = nn.Linear(embed_dims, embed_dims)
        self.dropout = nn.Dropout(dropout)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the projection; the attention inside draws its own."""
        xavier_init(self.output_proj, distribution="uniform")

    def forward(
        self, query: Tensor, features: ImageFeatures, reference: Tensor, queries: SeenQueries
    ) -> Tensor:
        """Attend and add the result, a mean over the cameras that see a cell, to the query.

        Args:
            query: (B, Q, C).
            features: of all cameras.
            reference: (B, N, Q, D, 2), the pillar points in the images, fractions (x, y).
            queries: whom each camera attends for.

        Returns:
            (B, Q, C).
        """
        cells, seen = queries
        batch, cameras, rows = cells.shape
        channels = query.shape[-1]
        spread = cells[..., None].expand(-1, -1, -1, channels)
        gathered = query[:, None].expand(-1, cameras, -1, -1).gather(2, spread)  # (B, N, M, C)
        points = reference.gather(
            2, cells[..., None, None].expand(-1, -1, -1, *reference.shape[-2:])
        )  # (B, N, M, D, 2)
        # Equation 2. Its sum over the points of a pillar is within the attention, under one
        # softmax.
        attended = self.deformable_attention(
            gathered.flatten(0, 1),
            features.values.flatten(0, 1),
            points.flatten(0, 1),
            features.shapes,
        )
        # Rows that only fill up add nothing.
        attended = attended.view(batch, cameras, rows, channels) * seen[..., None]
        total = torch.zeros_like(query, dtype=attended.dtype)
        views = torch.zeros(query.shape[:2], dtype=attended.dtype, device=query.device)
        # Camera by camera: a camera has each cell once, so that the order of the sum is fixed.
        for camera in range(cameras):
            total = total.scatter_add(1, spread[:, camera], attended[:, camera])
            views = views.scatter_add(1, cells[:, camera], seen[:, camera].to(views.dtype))
        # Where no camera looks the mean is 0, and the cell gets the projection's bias alone.
        mean = total / views.clamp(min=1)[..., None]
        return query + self.dropout(self.output_proj(mean))


def deformable_attention(
    value: Tensor, shapes: list[tuple[int, int]], locations: Tensor, weights: Tensor
) -> Tensor:
    """Call mmcv's multi-scale deformable attention, on whatever device the values are.

    Args:
        value: (B, K, heads, C / heads).
        shapes: (h, w) of each level.
        locations: (B, Q, heads, L, P, 2), fractions (x, y).
        weights: (B, Q, heads, L, P).

    Returns:
        (B, Q, C).
    """
    # Locations in half precision would be whole pixels off.
    with torch.autocast(value.device.type, enabled=False):
        value, locations, weights = value.float(), locations.float(), weights.float()
        if not _has_kernel(value):
            _, count, heads, _, points, _ = locations.shape
            # mmcv's reference holds whatever it samples: a few rows at a time need little.
            step = max(_SAMPLED_AT_ONCE // (count * heads * points * value.shape[-1]), 1)
            rows = zip(value.split(step), locations.split(step), weights.split(step), strict=True)
            return torch.cat([_attend_by_level(*row, shapes=shapes) for row in rows])
        sizes = torch.tensor(shapes, dtype=torch.long, device=value.device)
        areas = sizes.prod(1)
        return MultiScaleDeformableAttnFunction.apply(
            value.contiguous(),  # the kernel refuses views
            sizes,
            areas.cumsum(0) - areas,  # where each level begins
            locations.contiguous(),
            weights.contiguous(),
            len(value),  # one step for the whole batch: any size divides itself
        )


def _has_kernel(value: Tensor) -> bool:
    """Whether mmcv's kernel runs where the values are."""
    # By itself, so that a test without a GPU can check what the kernel is called with.
    return value.is_cuda


def _attend_by_level(
    value: Tensor, locations: Tensor, weights: Tensor, *, shapes: list[tuple[int, int]]
) -> Tensor:
    """Sum the levels of mmcv's reference, one at a time.

    The reference holds what is sampled at all levels together. For the cells of a full view that
    is gigabytes, and the time goes into getting them.
    """
    # Weights come behind their softmax, which was over all levels: their parts can be summed. This
    # can go once mmcv's own reference samples one level at a time.
    levels = zip(
        value.split([height * width for height, width in shapes], dim=1),
        locations.split(1, dim=3),
        weights.split(1, dim=3),
        shapes,
        strict=True,
    )
    sampled = [
        multi_scale_deformable_attn_pytorch(own, [shape], places, shares)
        for own, places, shares, shape in levels
    ]
    return torch.stack(sampled).sum(dim=0)


def _check_heads(name: str, embed_dims: int, num_heads: int) -> None:
    if num_heads < 1 or embed_dims % num_heads:
        raise ValueError(
            f"{name}: expected embed_dims to be a multiple of num_heads, got {embed_dims} and "
            f"{num_heads}"
        )


def _head_directions(num_heads: int) -> Tensor:
    """Return a direction (heads, 2) for each head, the larger component 1 (Deformable DETR)."""
    # Of 8 heads these are (1, 0), (1, 1), (0, 1) and so on: appendix A.4 of arXiv 2010.04159.
    angles = torch.arange(num_heads, dtype=torch.float32) * (2 * math.pi / num_heads)
    directions = torch.stack([angles.cos(), angles.sin()], dim=-1)
    return directions / directions.abs().amax(dim=-1, keepdim=True)


def _init_sampling(attention: TemporalSelfAttention | PillarAttention, directions: Tensor) -> None:
    """Draw the weights of an attention; point i of (heads, levels, P, 2) lies i + 1 pixels off."""
    steps = torch.arange(1, directions.shape[2] + 1, dtype=torch.float32)[:, None]
    # Weights of 0: at first all queries look alike, by the bias. mmengine's function sets the bias
    # to 0 too, so it comes before ours.
    constant_init(attention.sampling_offsets, 0.0)
    constant_init(attention.attention_weights, 0.0)
    with torch.no_grad():
        attention.sampling_offsets.bias.copy_((directions * steps).flatten())
    xavier_init(attention.value_proj, distribution="uniform")
