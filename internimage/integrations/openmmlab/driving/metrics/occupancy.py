"""Scores of occupancy on the benchmark Occ3D-nuScenes (arXiv 2304.14365): mIoU and F-score.

A grid is (X, Y, Z) with x forward, y left, z up; its values are 0-16 for things, 17 for free space
and 255 for what nobody has labelled. K = 18 classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from internimage.integrations.openmmlab.driving.data.occ3d import (
    FREE,
    IGNORED,
    OCCUPANCY_CLASSES,
)

_NUM_CLASSES = len(OCCUPANCY_CLASSES)


def confusion_matrix(
    prediction: NDArray[np.uint8], truth: NDArray[np.uint8], mask: NDArray[np.bool_] | None
) -> NDArray[np.int64]:
    """Count the voxels of one frame by their true and predicted class.

    Args:
        prediction: (X, Y, Z), 0-17.
        truth: (X, Y, Z); voxels with other labels than 0-17 are left out.
        mask: (X, Y, Z), the voxels that count; None for all.

    Returns:
        (K, K), rows are the truth.

    Raises:
        ValueError: The shapes differ, or the prediction holds a class above 17.
    """
    _check_shapes("confusion_matrix", prediction, truth, mask)
    counted = truth < _NUM_CLASSES  # 255 is nobody's label
    if mask is not None:
        counted &= mask
    # int64: a pair's number goes up to 323, beyond uint8.
    predicted, true = prediction[counted], truth[counted].astype(np.int64)
    # A larger class would be counted as another pair, without an error.
    if predicted.size and predicted.max() >= _NUM_CLASSES:
        raise ValueError(
            f"confusion_matrix: expected predictions of 0-{FREE}, got {predicted.max()}"
        )
    # A pair of classes as one number: a count of 640,000 voxels in one pass.
    pairs = np.bincount(true * _NUM_CLASSES + predicted, minlength=_NUM_CLASSES**2)
    return pairs.reshape(_NUM_CLASSES, _NUM_CLASSES)


def iou_per_class(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the IoU (K,), 0-1, of a sum of confusion matrices; nan for a class seen nowhere."""
    hits = np.diag(confusion)
    # With the row and the column of free space, which the mean alone leaves out: a thing that is
    # taken for free, or free space for a thing, lowers the thing's IoU.
    union = confusion.sum(0) + confusion.sum(1) - hits
    with np.errstate(invalid="ignore"):  # 0 / 0
        return hits / union


def mean_iou(confusion: NDArray[np.int64]) -> float:
    """Return the mIoU, 0-1: over all classes but free space, without those that are seen nowhere.

    It is nan where no class is seen at all.
    """
    ious = iou_per_class(confusion)[:FREE]
    # NumPy warns of the mean of nothing.
    return float(np.nanmean(ious)) if not np.isnan(ious).all() else float("nan")


def f_score(
    prediction: NDArray[np.uint8],
    truth: NDArray[np.uint8],
    mask: NDArray[np.bool_] | None,
    *,
    threshold: float = 0.4,
    voxel_size: float = 0.4,
    origin: Sequence[float] = (-40.0, -40.0, -1.0),
) -> tuple[float, float, float]:
    """Compare what is occupied in one frame, whatever its class, as clouds of points.

    Args:
        prediction: (X, Y, Z).
        truth: (X, Y, Z).
        mask: (X, Y, Z), the voxels that count; None for all.
        threshold: distance in metres that a nearest neighbour has to be below.
        voxel_size: side of a voxel in metres.
        origin: corner of the grid in metres. At the benchmark's threshold, which is the voxel's
            side, the last bit of a coordinate decides whether a neighbour counts, and so do its
            values of ``origin`` and ``voxel_size``.

    Returns:
        Precision, recall and F-score, 0-1; all are 0 where one of the grids is empty.

    Raises:
        ValueError: The shapes differ.
    """
    _check_shapes("f_score", prediction, truth, mask)
    clouds = []
    for grid in (prediction, truth):
        occupied = (grid != FREE) & (grid != IGNORED)
        if mask is not None:
            occupied &= mask
        # In this order, index times side first: see ``origin``.
        clouds.append(np.argwhere(occupied) * voxel_size + voxel_size / 2 + np.asarray(origin))
    if not len(clouds[0]) or not len(clouds[1]):
        return 0.0, 0.0, 0.0
    # Above the threshold, so that the comparison and not the tree decides about a tie.
    # Further neighbours than the bound are not searched for; they are at distance inf.
    precision, recall = (
        float((cKDTree(b).query(a, distance_upper_bound=1.5 * threshold)[0] < threshold).mean())
        for a, b in (clouds, clouds[::-1])
    )
    # The benchmark adds 1e-8 to the divisor; without, the recorded scores agree to 1e-6.
    total = precision + recall
    return precision, recall, 2 * precision * recall / total if total else 0.0


def _check_shapes(
    function: str,
    prediction: NDArray[np.uint8],
    truth: NDArray[np.uint8],
    mask: NDArray[np.bool_] | None,
) -> None:
    for name, grid in (("the prediction", prediction), ("the mask", mask)):
        if grid is not None and grid.shape != truth.shape:
            raise ValueError(
                f"{function}: expected {name} in the truth's shape {truth.shape}, got {grid.shape}"
            )
    if mask is not None and mask.dtype != np.bool_:
        raise ValueError(f"{function}: expected a mask of bool, got {mask.dtype}")
