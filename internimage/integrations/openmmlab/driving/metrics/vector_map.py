"""How well polylines of a map agree with the true ones: average precision by Chamfer distance.

A prediction looks at the true polyline of its class that is nearest to it, and at no other; it is
right if that one is near enough and no better-scored prediction of the frame has taken it. (The
rule of HDMapNet, arXiv 2107.06307, and VectorMapNet, arXiv 2206.08920.)

P polylines, K points of a polyline; coordinates are metres in the frame of the ego vehicle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from internimage.integrations.openmmlab.driving.data.map_elements import MAP_CLASSES, MapElements

THRESHOLDS = (0.5, 1.0, 1.5)  # metres, VectorMapNet's and the challenge's; HDMapNet has others
FARTHEST = 10_000  # metres from the vehicle, of a point that is meant; maps end at 30 m
SPACING = 0.3  # metres between the points of a resampled polyline, the challenge's

Array = NDArray[Any]


def resample_polyline(points: Array, *, spacing: float = SPACING) -> Array:
    """Return the points of a polyline (K, 2) at 0, 1, 2, ... times a spacing, and its end.

    Args:
        points: (K, 2), K >= 2.
        spacing: metres along the line.

    Raises:
        ValueError: the points are fewer than two or are not of the plane.
    """
    points = np.asarray(points, np.float64)
    if points.ndim != 2 or len(points) < 2 or points.shape[1] != 2 or not np.isfinite(points).all():
        raise ValueError(
            "resample_polyline: expected at least 2 finite points (K, 2), got an array of shape "
            f"{points.shape}"
        )
    # By vertices alone a mean distance would say nothing of the long way between two.
    along = np.concatenate([[0.0], np.linalg.norm(np.diff(points, axis=0), axis=1).cumsum()])
    # The end is a point of its own, however near the one before it is.
    positions = np.append(np.arange(0.0, along[-1], spacing), along[-1])  # (K',)
    return np.stack([np.interp(positions, along, axis) for axis in points.T], axis=1)


def chamfer_distance(first: Array, second: Array) -> float:
    """Return the mean of both directed mean distances to the nearest point, in metres.

    Args:
        first: (K, 2), as resampled.
        second: (K', 2), as resampled.
    """
    distances = cdist(first, second)  # (K, K')
    return float(distances.min(axis=1).mean() + distances.min(axis=0).mean()) / 2


def match_polylines(
    predicted: Sequence[Array],
    scores: Array,
    truth: Sequence[Array],
    thresholds: Sequence[float] = THRESHOLDS,
) -> NDArray[np.bool_]:
    """Say which predictions (P,) of a class and a frame are right, for each threshold T: (T, P).

    Args:
        predicted: polylines as resampled.
        scores: (P,).
        truth: the true polylines as resampled.
        thresholds: T distances in metres; one as large as the threshold is still right.
    """
    right = np.zeros((len(thresholds), len(predicted)), bool)
    if not len(truth) or not len(predicted):
        return right
    # (P, truth): the second nearest truth is never looked at, even if the nearest is taken.
    distances = np.array([[chamfer_distance(p, t) for t in truth] for p in predicted])
    nearest, distance = distances.argmin(axis=1), distances.min(axis=1)
    for row, threshold in enumerate(thresholds):
        # Anew for each threshold: what is right at 1.5 m may leave its truth to another at 0.5 m.
        taken: set[int] = set()
        for index in np.argsort(-scores, kind="stable"):
            if distance[index] <= threshold and nearest[index] not in taken:
                taken.add(nearest[index])
                right[row, index] = True
    return right


def average_precision(right: Array, scores: Array, num_truth: int) -> float:
    """Return the area below the precision of all predictions (P,), made to fall with recall.

    Args:
        right: (P,) bool.
        scores: (P,).
        num_truth: true polylines of all frames; the precision of none is 0.
    """
    # The challenge counts a class without any truth as 0 and does not leave it out of the mean.
    if not num_truth or not len(right):
        return 0.0
    # Stable: which of two equal scores comes first is nobody's rule, but is always the same.
    hits = right[np.argsort(-scores, kind="stable")].cumsum()
    precision = hits / np.arange(1, len(hits) + 1)
    # At each recall the best precision at that recall or beyond: the area has no dents.
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(hits / num_truth, prepend=0.0) * envelope).sum())


def score_vector_maps(
    truth: Mapping[str, MapElements],
    predictions: Mapping[str, MapElements],
    *,
    classes: Sequence[str] = MAP_CLASSES,
    thresholds: Sequence[float] = THRESHOLDS,
) -> dict[str, Any]:
    """Score the maps of many frames.

    Args:
        truth: the map of each frame by its token; scores are not read.
        predictions: the same of the predictions. A frame that is missing counts as an empty map,
            one that the truth does not have is ignored.
        classes: names of the labels 0, 1, ...
        thresholds: distances in metres.

    Returns:
        ``mAP``; ``AP`` by class, the mean over the thresholds; ``per_class``: counts and the
        AP of every threshold; ``missing_frames`` and ``unknown_frames``: how many.

    Raises:
        ValueError: a frame is not as :func:`check_elements` has it.
    """
    counts = np.zeros(len(classes), int)
    found: list[list[Array]] = [[] for _ in classes]  # per class and frame: (1 + T, P)
    empty = MapElements(polylines=[], labels=np.zeros(0, int), scores=np.zeros(0))
    for token, true_map in truth.items():
        true_lines = _lines_by_class(token, true_map, len(classes), scored=False)
        lines = _lines_by_class(token, predictions.get(token, empty), len(classes), scored=True)
        for label, ((true, _), (predicted, scores)) in enumerate(
            zip(true_lines, lines, strict=True)
        ):
            counts[label] += len(true)
            right = match_polylines(predicted, scores, true, thresholds)
            found[label].append(np.concatenate([scores[None], right]))

    per_class: dict[str, dict[str, float]] = {}
    for name, count, parts in zip(classes, counts.tolist(), found, strict=True):
        # The empty first part is for a truth of no frames, which has nothing to concatenate.
        scores, *rows = np.concatenate([np.zeros((1 + len(thresholds), 0)), *parts], axis=1)
        precisions = [average_precision(row.astype(bool), scores, count) for row in rows]
        per_class[name] = {
            "num_gts": count,
            "num_preds": len(scores),
            **{f"AP@{t}": ap for t, ap in zip(thresholds, precisions, strict=True)},
            "AP": float(np.mean(precisions)),
        }
    return {
        "mAP": float(np.mean([values["AP"] for values in per_class.values()])),
        "AP": {name: values["AP"] for name, values in per_class.items()},
        "per_class": per_class,
        "missing_frames": len(truth.keys() - predictions.keys()),
        "unknown_frames": len(predictions.keys() - truth.keys()),
    }


def elements_from_submission(token: str, result: Any) -> MapElements:
    """Read one frame of a submission: its ``vectors``, ``scores`` and ``labels``.

    Args:
        token: names the frame in errors.
        result: the frame's entry, as ``json`` reads it.

    Raises:
        ValueError: one of the three is missing or no list of numbers, they differ in length, a
            label is not whole, or a line has fewer than two points or others than (x, y).
    """
    missing = {"vectors", "scores", "labels"} - set(result if isinstance(result, dict) else ())
    if missing:
        raise ValueError(
            "elements_from_submission: expected vectors, scores and labels of every frame, got a "
            f"frame {token} without {', '.join(sorted(missing))}"
        )
    try:
        lines = [np.asarray(line, np.float64) for line in result["vectors"]]
        labels, scores = (np.asarray(result[name], np.float64) for name in ("labels", "scores"))
    except (TypeError, ValueError) as error:
        raise ValueError(
            "elements_from_submission: expected lists of numbers for vectors, scores and labels of "
            f"frame {token}, got others: {error}"
        ) from error
    # Whole ones: the next smaller class is no better guess than another.
    whole = np.isfinite(labels).all() and (labels == np.round(labels)).all()
    if labels.ndim != 1 or scores.ndim != 1 or not whole:
        raise ValueError(
            "elements_from_submission: expected a score and a whole number as label for each line "
            f"of frame {token}, got {result['scores']!r:.40} and {result['labels']!r:.40}"
        )
    for line in lines:
        if line.ndim != 2 or len(line) < 2 or line.shape[1] != 2:
            raise ValueError(
                "elements_from_submission: expected at least 2 points (x, y) of each line of frame "
                f"{token}, got an array of shape {line.shape}"
            )
    elements = MapElements(polylines=lines, labels=labels.astype(int), scores=scores)
    check_elements(token, elements, scored=True)
    return elements


def _lines_by_class(
    token: str, elements: MapElements, num_classes: int, *, scored: bool
) -> list[tuple[list[Array], Array]]:
    """Return the resampled polylines and the scores of each class."""
    check_elements(token, elements, scored=scored, num_classes=num_classes)
    labels = np.asarray(elements["labels"])
    by_class = []
    for label in range(num_classes):
        indices = np.flatnonzero(labels == label)
        lines = [resample_polyline(elements["polylines"][index]) for index in indices]
        scores = np.asarray(elements["scores"], np.float64)[indices] if scored else indices * 0.0
        by_class.append((lines, scores))
    return by_class


def check_elements(
    token: str, elements: MapElements, *, scored: bool, num_classes: int = len(MAP_CLASSES)
) -> None:
    """Check the map of a frame.

    Args:
        token: names the frame in errors.
        elements: its polylines, labels and, if ``scored``, scores.
        scored: whether it is a prediction.
        num_classes: how many labels there are, from 0.

    Raises:
        ValueError: they differ in number, a polyline has fewer than two points, points or scores
            are no numbers, a score is not 0-1, or a label is of no class.
    """
    names = ("polylines", "labels", "scores") if scored else ("polylines", "labels")
    lengths = {name: len(elements[name]) for name in names if name in elements}  # type: ignore[literal-required]
    if len(lengths) < len(names) or len(set(lengths.values())) > 1:
        raise ValueError(
            f"check_elements: expected as many {', '.join(names)}, got {lengths} in frame {token}"
        )
    # A score that is no number would be sorted anywhere, and its line could be right.
    numbers = [*elements["polylines"], *([elements["scores"]] if scored else [])]
    if not all(np.isfinite(np.asarray(values, np.float64)).all() for values in numbers):
        raise ValueError(
            f"check_elements: expected finite points and scores, got nan or inf in frame {token}"
        )
    outside = [score for score in elements["scores"] if not 0 <= score <= 1] if scored else []
    if outside:
        raise ValueError(
            f"check_elements: expected scores 0-1, got {outside[0]:.6g} in frame {token}"
        )
    for line in elements["polylines"]:
        if np.ndim(line) != 2 or len(line) < 2 or np.shape(line)[1] != 2:
            raise ValueError(
                f"check_elements: expected at least 2 points (x, y) of each line of frame {token}, "
                f"got an array of shape {np.shape(line)}"
            )
        # Resampled every 0.3 m, a vertex of diverged weights would take all memory.
        if np.abs(np.asarray(line)).max() > FARTHEST:
            raise ValueError(
                f"check_elements: expected points within {FARTHEST:,} m of the vehicle in frame "
                f"{token}, got one at {np.abs(np.asarray(line)).max():.3g} m"
            )
    # A label beyond the classes would vanish, and a false prediction with it.
    wrong = [
        label
        for label in np.asarray(elements["labels"]).tolist()
        if label not in range(num_classes)
    ]
    if wrong:
        raise ValueError(
            f"check_elements: expected labels 0 to {num_classes - 1}, got {wrong[0]} in frame "
            f"{token}"
        )
