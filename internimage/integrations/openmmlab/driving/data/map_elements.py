"""A vectorised map as readers hand it to scores: the polylines of a frame with their classes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

# In the order of the challenge's labels, 0-2, which the released weights have as well.
MAP_CLASSES = ("ped_crossing", "divider", "boundary")

Array = NDArray[Any]


class MapElements(TypedDict):
    """The map of one frame: P polylines (K, 2), their classes (P,) and, predicted, scores (P,)."""

    polylines: list[Array]
    labels: Array
    scores: Array


def elements_from_annotation(
    annotation: Mapping[str, Iterable[Any]], classes: Sequence[str] = MAP_CLASSES
) -> MapElements:
    """Read the true map of a frame: of each class, polylines of points (x, y[, z]).

    Polylines of fewer than two points are no lines; they are left out.

    Args:
        annotation: polylines by class, as ``json`` reads it; other classes are not read.
        classes: names of the labels 0, 1, ...
    """
    lines = [
        # Heights are dropped: the challenge compares maps in the plane.
        (label, np.asarray(line, np.float64)[:, :2])
        for label, name in enumerate(classes)
        for line in annotation.get(name, ())
        if len(line) >= 2
    ]
    return MapElements(
        polylines=[line for _, line in lines],
        labels=np.array([label for label, _ in lines], int),
        scores=np.ones(len(lines)),
    )
