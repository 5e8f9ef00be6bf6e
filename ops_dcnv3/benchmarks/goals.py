"""What the operator is to reach on one H200, in 16 bits, and the verdict on a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from measure import judge
from workloads import WIDE, Layer

FORWARD, BACKWARD = "forward", "backward"
STAGE_1_US, WIDE_US = 45.0, 100.0
FLOORS = {FORWARD: 2.2, BACKWARD: 2.5}  # stages 2-4 forward, all stages backward
TIMES_ORIGINAL = {FORWARD: 8.0, BACKWARD: 5.0}
TIMES_DCNV4 = 1.3


@dataclass(frozen=True)
class Goal:
    """The most that a call may take: microseconds, or times its memory floor."""

    most: float
    unit: Literal["us", "floors"]

    def judge(self, microseconds: float, floors: float) -> tuple[str, str]:
        """Cells of the goal and of the verdict on a time, given both ways."""
        value = microseconds if self.unit == "us" else floors
        words, verdict = judge(value, self.most, at_most=True)
        return f"{words} {self.unit}", verdict


def goal_of(layer: Layer, dtype: torch.dtype, direction: str) -> Goal | None:
    """The goal of one layer; there are none in 32 bits and for single images."""
    if layer.batch == 1 or dtype == torch.float32:
        return None
    if direction == FORWARD and layer.name == WIDE.name:
        return Goal(WIDE_US, "us") if dtype == torch.float16 else None
    if direction == FORWARD and layer.name == "stage 1":
        return Goal(STAGE_1_US, "us")
    return Goal(FLOORS[direction], "floors")
