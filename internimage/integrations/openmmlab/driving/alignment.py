"""How the view of the frame before becomes the first slot of the attention over time.

Shapes: B batch, Q = H W cells, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.functional import rotate

from internimage.integrations.openmmlab.driving.geometry import BEVGrid, warp_bev
from internimage.integrations.openmmlab.driving.history import BEVHistory


@dataclass(frozen=True)
class AlignedHistory:
    """History in the current frame.

    Args:
        reference: (B, 2, Q, 2), where each cell looks in history and in the current view, fractions
            (x, y).
        previous: (B, Q, C) in the current frame, or None if no sample has history.
        known: (B, Q or 1, 1) bool, the cells that were in the previous view.
        current: (B, Q, C), the queries of the first layer.
    """

    reference: Tensor
    previous: Tensor | None = None
    known: Tensor | None = None
    current: Tensor | None = None

    def slots(self, query: Tensor) -> Tensor:
        """Return what a layer with these queries (B, Q, C) sees in its two slots, (B, 2, Q, C).

        A cell without history finds the layer's query in both, as BEVFormer has it for whole
        samples. With history the current slot holds the query of the first layer.
        """
        if self.previous is None:
            return query[:, None].expand(-1, 2, -1, -1)
        assert self.known is not None and self.current is not None
        # Per cell, not per sample: training without history knows no pair of the running query in
        # the one slot and the first query in the other.
        both = torch.stack([self.previous.to(query.dtype), self.current], dim=1)
        return torch.where(self.known[:, None], both, query[:, None])


def align_by_pose(history: BEVHistory | None, query: Tensor, grid: BEVGrid) -> AlignedHistory:
    """Warp the history by the motion of the ego.

    Args:
        history: or None if no sample has any.
        query: (B, Q, C) of the first layer.
        grid: the cells.
    """
    centres = grid.centres(query.device).flatten(0, 1)
    # Both slots at the cell itself: the view is warped, so nothing is left to shift.
    reference = centres.expand(len(query), 2, -1, -1)
    if history is None:
        return AlignedHistory(reference)
    warped, inside = warp_bev(history.bev, history.motion, grid)
    return AlignedHistory(
        reference,
        previous=warped.flatten(2).transpose(1, 2),  # (B, Q, C)
        # (B, Q, 1)
        known=inside.flatten(1)[..., None] & history.valid[:, None, None],
        current=query,
    )


def align_by_can_bus(
    history: BEVHistory,
    query: Tensor,
    grid: BEVGrid,
    can_bus: Tensor,
    *,
    centre: tuple[float, float],
    shift_current: bool,
) -> AlignedHistory:
    """Turn the history by the change of yaw, and shift where each cell looks.

    For released models: the axes are those of a grid whose y is forward, while the grid's x is.

    Args:
        history: of the batch.
        query: (B, Q, C) of the first layer.
        grid: the cells.
        can_bus: (B, 18), relative.
        centre: (x, y) in cells that the history is turned about.
        shift_current: shift the lookup of the current view too.
    """
    turned = [
        turn_view(bev, angle, centre)
        for bev, angle in zip(history.bev, can_bus[:, -1].tolist(), strict=True)
    ]
    reference = grid.centres(query.device).flatten(0, 1).expand(len(query), 2, -1, -1)
    shift = can_bus_shift(can_bus, grid).to(reference)[:, None, None]
    # (B, 1, 1, 2) times a factor for each slot, (1, 2, 1, 1).
    shift = shift * torch.tensor([1.0, float(shift_current)]).to(shift)[None, :, None, None]
    return AlignedHistory(
        reference + shift,
        previous=torch.stack(turned).flatten(2).transpose(1, 2),
        # (B, 1, 1)
        known=history.valid[:, None, None],
        current=query,
    )


def turn_view(bev: Tensor, degrees: float, centre: tuple[float, float]) -> Tensor:
    """Return a view (C, H, W) turned about (x, y) in cells, each cell taken from the nearest one.

    The scene turns against the ego. At the corners zeros come in, and count as history, as in the
    original.
    """
    # Numbers of cells are turned and not the view: torchvision multiplies by its matrix in the type
    # of what it turns, and TF32 or half precision would take other cells.
    numbers = torch.arange(1, bev[0].numel() + 1, device=bev.device, dtype=torch.float64)
    # torchvision turns counter-clockwise with y downwards, which in a grid with y upwards is
    # clockwise.
    sources = rotate(numbers.view_as(bev[:1]), degrees, center=list(centre)).long()
    # Number 0 is what lies outside.
    return F.pad(bev.flatten(1), (1, 0))[:, sources.flatten()].view_as(bev)


def can_bus_shift(can_bus: Tensor, grid: BEVGrid) -> Tensor:
    """Return the shift (B, 2) of the view by readings (B, 18), fractions (x, y) of the range.

    The formula is the original's: L the way in metres, a the yaw less the direction of the way;
    x moves by L sin a and y by L cos a.
    """
    # Right in a LiDAR's frame, wrong in this one: kept for as long as released models are
    # evaluated.
    dx, dy = can_bus[:, 0], can_bus[:, 1]
    # Index -2 is the absolute yaw, which the way, in axes of the world, is compared with.
    angle = can_bus[:, -2] - torch.atan2(dy, dx)
    way = torch.hypot(dx, dy)
    extent = can_bus.new_tensor(grid.extent[:2])
    return torch.stack([way * torch.sin(angle), way * torch.cos(angle)], dim=-1) / extent
