"""The canvas of a vectorised map: metres as cells, and cells as the tokens of a sequence."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from internimage.integrations.openmmlab.driving.geometry import are_bounds

END = 0
"""The token that ends a polyline; a cell's token is its index plus one."""


@dataclass(frozen=True)
class MapCanvas:
    """A rectangle of the ground around the vehicle and its cells.

    Args:
        range: x_min, y_min, x_max, y_max in metres, ego frame.
        cells: cells along x and along y.
        slack: metres that the canvas is longer than the range, at its upper ends alone.

    Raises:
        ValueError: the range is empty, an axis has no whole number of two or more cells, or the
            slack is negative.
    """

    # 60 x 30 m in 200 x 100 cells: appendix C.1 of VectorMapNet. With the slack and one cell less a
    # cell is 0.312 m by 0.323 m, not the paper's 0.3.
    range: tuple[float, float, float, float] = (-30.0, -15.0, 30.0, 15.0)
    cells: tuple[int, int] = (200, 100)
    slack: float = 2.0  # the original's, whose weights know the tokens so

    def __post_init__(self) -> None:
        """Check the numbers, and take lists of a config as tuples."""
        object.__setattr__(self, "range", tuple(float(value) for value in self.range))
        if len(self.range) != 4 or not are_bounds(self.range):
            raise ValueError(
                "MapCanvas: expected range = x_min, y_min, x_max, y_max with every minimum below "
                f"its maximum, got {self.range}"
            )
        if len(self.cells) != 2 or not all(value >= 2 and value % 1 == 0 for value in self.cells):
            raise ValueError(
                "MapCanvas: expected cells = two whole numbers of 2 or more, got "
                f"{tuple(self.cells)}"
            )
        object.__setattr__(self, "cells", tuple(int(value) for value in self.cells))
        # Below 0 the end of the range would have a token beyond the cells.
        if not (math.isfinite(self.slack) and self.slack >= 0):
            raise ValueError(f"MapCanvas: expected slack = metres of 0 or more, got {self.slack}")

    @property
    def vocabulary(self) -> int:
        """Number of tokens: the cells of the longer axis, and the end."""
        return max(self.cells) + 1

    @property
    def origin(self) -> NDArray[np.float64]:
        """The corner (x_min, y_min) in metres."""
        return np.array(self.range[:2])

    @property
    def size(self) -> NDArray[np.float64]:
        """Length along x and y in metres, with the slack."""
        return np.array(self.range[2:]) - self.origin + self.slack  # metres

    @property
    def scale(self) -> NDArray[np.float64]:
        """What a fraction of the canvas is multiplied by to get a cell's index."""
        # One less than the cells, so that the upper edge itself, fraction 1, is in the last cell.
        return np.array(self.cells) - 1.0

    def to_fractions(self, points: NDArray[Any]) -> NDArray[np.float64]:
        """Turn points (..., 2) in metres into fractions of the canvas."""
        return (np.asarray(points, np.float64) - self.origin) / self.size

    def to_tokens(self, fractions: NDArray[Any]) -> NDArray[np.int64]:
        """Turn fractions (..., 2) into tokens (..., 2), 1 or more."""
        # Rounded down: to_metres gives the other half of the cell back.
        return (np.asarray(fractions) * self.scale).astype(np.int64) + 1

    def to_metres(self, tokens: NDArray[Any]) -> NDArray[np.float64]:
        """Turn tokens (..., 2) into the middle of their cells, in metres.

        The original takes the lower corner of a cell, which moves every line by half a cell.
        """
        return (np.asarray(tokens) - 0.5) / self.scale * self.size + self.origin
