"""Distances between directed lane centrelines, and the F-score of lanes.

Letters: G truths, P predictions, n points of a line. All lines are in metres, in the ego frame (x
forward, y left, z up). Source: OpenLane-V2 (arXiv 2304.10440); the F-score is that of OpenLane.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

# The devkit's number; any one above the largest threshold of a match would do.
FAR = 1024.0
"""The distance in metres of two lines that have nothing to do with each other."""

# The largest threshold of a lane. No distance of Chamfer is above that of Frechet, so a pair at the
# gate could not match anyhow: it spares the dear distance of most pairs and changes no score.
CHAMFER_GATE = 3.0
"""Two lines whose relaxed Chamfer distance in metres is this or more are ``FAR`` apart."""

# As far as OpenLane-V2 annotates lanes along x. The two below are of OpenLane (arXiv 2203.11089).
FORWARD_STEPS = np.arange(-50.0, 50.0)
"""The x in metres at which the F-score compares two lines."""

NEAR_POINT = 1.5
"""Two points of one x that are closer than this, in metres, count as the same point."""

NEAR_SHARE = 0.75
"""The share of a line's points that must be near for the line to be found."""


def lane_distances(
    truths: Sequence[np.ndarray], predictions: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the relaxed Chamfer and Frechet distances of all pairs of lines, in metres.

    Both are multiplied by ``max(0.5, 1 - 0.005 d)``, d being the distance from the ego to the
    truth's nearest point: far away, less is asked for.

    Args:
        truths: G lines (n, 3).
        predictions: P lines (n, 3).

    Returns:
        Chamfer distances (G, P), the mean of the two directed means, and discrete Frechet distances
        (G, P), ``FAR`` where the Chamfer distance is ``CHAMFER_GATE`` or more.
    """
    chamfer = np.zeros((len(truths), len(predictions)))
    frechet = np.full_like(chamfer, FAR)
    lengths = np.array([len(line) for line in predictions])
    # Predictions of one length, as nearly all are, are compared at once.
    for length in np.unique(lengths):
        columns = np.flatnonzero(lengths == length)
        stacked = np.array([predictions[column] for column in columns], np.float64)  # (P, m, 3)
        for row, truth in enumerate(np.asarray(line, np.float64) for line in truths):
            relaxation = max(0.5, 1 - 0.005 * np.linalg.norm(truth, axis=1).min())
            points = np.linalg.norm(truth[:, None] - stacked[:, None], axis=3)  # (P, n, m)
            directed = points.min(2).mean(1) + points.min(1).mean(1)
            chamfer[row, columns] = directed / 2 * relaxation
            near = chamfer[row, columns] < CHAMFER_GATE
            frechet[row, columns[near]] = _frechet(points[near]) * relaxation
    return chamfer, frechet


def _frechet(points: np.ndarray) -> np.ndarray:
    """Return the discrete Frechet distances (P,) from the distances of the points (P, n, m)."""
    # Dynamic programming, row by row: up to the points i and j it takes the best of the three ways
    # to them, or their own distance if that is longer. All P lines at once.
    reach = np.maximum.accumulate(points[:, 0], axis=1)
    for row in range(1, points.shape[1]):
        before = reach
        # A new array, of which only column 0 is final: there the one way is down.
        reach = np.maximum(points[:, row], before)
        for column in range(1, points.shape[2]):
            way = np.minimum(before[:, column - 1 : column + 1].min(1), reach[:, column - 1])
            reach[:, column] = np.maximum(points[:, row, column], way)
    return reach[:, -1]


def lane_f_score(frames: Sequence[tuple[Sequence[np.ndarray], Sequence[np.ndarray]]]) -> float:
    """Return the F-score of the lanes of all frames; no confidence is asked for.

    Args:
        frames: of each frame the truths and the predictions, lines (n, 3).
    """
    found = right = num_truths = num_predictions = 0
    for truths, predictions in frames:
        truth_lines, prediction_lines = _at_steps(truths), _at_steps(predictions)
        num_truths += len(truth_lines)
        num_predictions += len(prediction_lines)
        hits = _assigned_hits(truth_lines, prediction_lines)
        found += hits[0]
        right += hits[1]
    recall = found / num_truths if num_truths else 0.0
    precision = right / num_predictions if num_predictions else 0.0
    return 2 * recall * precision / (recall + precision) if recall + precision else 0.0


def _at_steps(lines: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return y and z (100, 2) at the steps and which steps (100,) the line covers, of each line.

    Lines with fewer than two steps are left out.
    """
    sampled = []
    for line in (np.asarray(line, np.float64) for line in lines):
        # By the first and the last point, so a lane that comes towards the ego may fall out here.
        if len(line) < 2 or line[0, 0] >= FORWARD_STEPS[-1] or line[-1, 0] <= FORWARD_STEPS[0]:
            continue
        visible = (FORWARD_STEPS >= line[:, 0].min()) & (FORWARD_STEPS <= line[:, 0].max())
        if visible.sum() < 2:
            continue
        # A lane that turns back has several points at one x: np.interp needs them in an order.
        ordered = line[np.argsort(line[:, 0], kind="stable")]
        sides = [np.interp(FORWARD_STEPS, ordered[:, 0], ordered[:, axis]) for axis in (1, 2)]
        # Outside of a line np.interp repeats its ends: those steps are not `visible`.
        sampled.append((np.stack(sides, 1), visible))
    return sampled


def _assigned_hits(
    truths: list[tuple[np.ndarray, np.ndarray]], predictions: list[tuple[np.ndarray, np.ndarray]]
) -> tuple[int, int]:
    """Return how many truths are found and how many predictions are right, one to one."""
    costs = np.zeros((len(truths), len(predictions)), int)
    near = np.zeros_like(costs)
    for row, (truth, truth_visible) in enumerate(truths):
        for column, (prediction, visible) in enumerate(predictions):
            errors = np.linalg.norm(truth - prediction, axis=1)
            # As far as just not near, where one of them does not reach.
            errors[truth_visible != visible] = NEAR_POINT
            errors[~truth_visible & ~visible] = 0
            near[row, column] = (errors[truth_visible | visible] < NEAR_POINT).sum()
            # Whole numbers, as the flow solver of the original needs them; no cost below 1 is lost.
            costs[row, column] = max(int(errors.sum()), int(errors.sum() > 0))
    found = right = 0
    # Another solver than the original's min-cost flow, the same least sum.
    for row, column in zip(*linear_sum_assignment(costs), strict=True):
        # The solver pairs all it can; at 1.5 m on all 100 steps a pair has nothing in common.
        if costs[row, column] < NEAR_POINT * len(FORWARD_STEPS):
            # Of the truth's own steps for the recall, of the prediction's for the precision.
            found += bool(near[row, column] >= NEAR_SHARE * truths[row][1].sum())
            right += bool(near[row, column] >= NEAR_SHARE * predictions[column][1].sum())
    return found, right
