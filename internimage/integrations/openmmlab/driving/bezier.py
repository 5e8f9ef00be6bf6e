"""Lanes as Bezier curves: the control points of a polyline, and points of a curve.

Letters: n points of a polyline, M control points (the degree is M - 1), P points to sample.
"""

from __future__ import annotations

from functools import cache
from math import comb

import numpy as np

NUM_CONTROL_POINTS = 5
"""M of a lane in OpenLane-V2's baseline."""

NUM_LANE_POINTS = 11
"""P of a predicted lane, and of a true one when lanes are scored."""


@cache
def bernstein(num_points: int, num_control: int = NUM_CONTROL_POINTS) -> np.ndarray:
    """Return the share (P, M) of each control point in points at even parameters from 0 to 1."""
    t = np.linspace(0, 1, num_points)[:, None]
    k = np.arange(num_control)
    binomials = np.array([comb(num_control - 1, index) for index in k])
    # At the ends NumPy's 0**0, which is 1, leaves exactly the first and the last control point.
    return binomials * t**k * (1 - t) ** (num_control - 1 - k)


def fit_bezier(points: np.ndarray, num_control: int = NUM_CONTROL_POINTS) -> np.ndarray:
    """Return the control points (M, 3) of the curve nearest to a polyline.

    The ends of the curve are those of the polyline. The others are the least squares solution with
    the points at even parameters.

    Args:
        points: (n, 3). Of fewer than M points, which do not say where the curve runs, the line
            between them is taken.
        num_control: M.

    Raises:
        ValueError: there are fewer than two points.
    """
    points = np.asarray(points, np.float64)
    if points.ndim != 2 or len(points) < 2:
        raise ValueError(f"fit_bezier: expected at least two points (n, 3), got {points.shape}")
    if len(points) < num_control:
        # Twice as many as needed, so that the least squares have one solution.
        places = np.linspace(0, len(points) - 1, 2 * num_control)
        points = np.stack([np.interp(places, range(len(points)), axis) for axis in points.T], 1)
    # Even parameters, not arc length: so were the released model's targets made.
    shares = bernstein(len(points), num_control)
    ends = points[[0, -1]]
    # (n, 3): what the inner control points have to explain.
    rest = points - shares[:, [0, -1]] @ ends
    return np.concatenate([ends[:1], _inner_solution(len(points), num_control) @ rest, ends[1:]])


@cache
def _inner_solution(num_points: int, num_control: int) -> np.ndarray:
    """Return what makes the inner control points (M - 2, n) of what the ends leave over."""
    return np.linalg.pinv(bernstein(num_points, num_control)[:, 1:-1])
