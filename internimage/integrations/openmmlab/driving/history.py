"""What a bird's eye view keeps of the frame before: the view itself, the ego's motion, readings.

Shapes: B batch, C channels, H W cells of the BEV.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from internimage.integrations.openmmlab.driving.poses import (
    Matrix,
    quaternion_of,
    yaw_of,
)

# As many as the first linear layer of the released `can_bus_mlp` takes.
CAN_BUS_SIZE = 18
"""Translation (3, m, global), rotation (4, quaternion), accelerations (3), rotation rates (3),
velocities (3), yaw in rad, yaw in degrees."""


@dataclass(frozen=True)
class BEVHistory:
    """The bird's eye views of the previous frames of a batch.

    Args:
        bev: (B, C, H, W), each in the ego frame of its own time.
        motion: (B, 4, 4) from previous ego coordinates to current ones, metres.
        valid: (B,) bool: whether the sample has a previous frame; where it has none the other
            fields are not read.

    Raises:
        ValueError: the batch sizes differ.
    """

    bev: Tensor
    motion: Tensor
    valid: Tensor

    def __post_init__(self) -> None:
        """Check the batch sizes."""
        sizes = len(self.bev), len(self.motion), len(self.valid)
        if len(set(sizes)) != 1:
            raise ValueError(
                f"BEVHistory: expected bev, motion and valid of one batch, got {sizes} samples"
            )


def motion_between(previous_ego2global: Matrix, ego2global: Matrix) -> Matrix:
    """Return the pose (4, 4) that takes previous ego coordinates to current ones.

    In float64, because global coordinates are kilometres and cells are decimetres.
    """
    return np.linalg.inv(ego2global) @ previous_ego2global


def can_bus_of_pose(ego2global: Matrix) -> Matrix:
    """Return the vector (18,) of a set without CAN readings, which are 0 in it.

    Args:
        ego2global: pose of the ego (4, 4).
    """
    vector = np.zeros(CAN_BUS_SIZE)
    vector[:3] = ego2global[:3, 3]
    vector[3:7] = quaternion_of(ego2global[:3, :3])
    # The same angle twice, as BEVFormer's data set writes it: one stays absolute, the other becomes
    # the change since the frame before.
    vector[-2] = yaw_of(ego2global)
    vector[-1] = np.degrees(vector[-2])
    return vector


def relative_can_bus(can_bus: Matrix, previous: Matrix | None) -> Matrix:
    """Return a vector (18,) with its translation and its yaw in degrees since the previous frame.

    Both are 0 without a previous frame. The rest, the yaw in rad too, stays absolute: the released
    models were trained so. The change of yaw is within half a turn; the original had -358 degrees
    for the 2 from 359 to 1.

    Args:
        can_bus: (18,), absolute.
        previous: (18,), absolute, or None.
    """
    relative = can_bus.copy()
    before = can_bus if previous is None else previous
    relative[:3] -= before[:3]
    relative[-1] = (relative[-1] - before[-1] + 180) % 360 - 180  # [-180, 180)
    return relative


def stack_history(bevs: list[Tensor | None], motions: list[Matrix | None]) -> BEVHistory | None:
    """Put the histories of single samples together.

    Args:
        bevs: per sample (C, H, W) of its previous frame, or None.
        motions: per sample (4, 4), None where ``bevs`` is.

    Returns:
        Them as a batch, or None if no sample has any.
    """
    known = [bev for bev in bevs if bev is not None]
    if not known:
        return None
    # Zeros and the identity stand for what `valid` says is not read.
    zero = torch.zeros_like(known[0])
    return BEVHistory(
        bev=torch.stack([zero if bev is None else bev for bev in bevs]),
        # (B, 4, 4), left in float64: warp_bev inverts it first.
        motion=torch.stack(
            [
                torch.from_numpy(np.eye(4) if motion is None else motion).to(zero.device)
                for motion in motions
            ]
        ),
        valid=torch.tensor([bev is not None for bev in bevs], device=zero.device),
    )


@dataclass(frozen=True)
class KeptFrame:
    """The last frame of a drive: its view (C, H, W), pose (4, 4) and readings (18,)."""

    scene: str
    token: str
    bev: Tensor
    ego2global: Matrix
    can_bus: Matrix
