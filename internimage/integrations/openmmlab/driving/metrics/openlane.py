"""OLS, the score of OpenLane-V2, and its parts, of frames in the data set's own layout.

Letters: G truths, P predictions of a frame, n points of a line, k traffic elements. Two versions
of the score are in use, and their topology parts are not comparable (see ``Version``). Source:
OpenLane-V2 (arXiv 2304.10440) and the facts of its development kits 1.0 and 2.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from torchvision.ops import box_iou

from internimage.integrations.openmmlab.driving.data.openlane_layout import ATTRIBUTES, check_frame
from internimage.integrations.openmmlab.driving.metrics.lane_distances import (
    lane_distances,
    lane_f_score,
)

Version = Literal["1.0", "1.0-as-released", "2.1"]
"""How topology is scored.

``1.0``: ten cut-offs of the confidence for each frame; a missing edge counts as the worst answer.
    This is the version of the CVPR 2023 challenge and of the published results.
``1.0-as-released``: the same with a fault of the released script: the cut-offs are looked up in the
    confidences as submitted, so they are right only if the predictions come by falling confidence.
``2.1``: no cut-offs; a missing edge counts as one that is barely wrong.
"""

# Both are OpenLane-V2's (arXiv 2304.10440); an element needs an IoU above 0.25 only.
LANE_THRESHOLDS = (1.0, 2.0, 3.0)
"""A lane is found if its Frechet distance in metres is smaller."""

ELEMENT_THRESHOLD = 0.75
"""A traffic element is found if 1 - IoU is smaller."""

# Of the confidence in the topology score; of the recall in the average precision, PASCAL VOC's.
NUM_CUT_OFFS = 10
NUM_RECALL_LEVELS = 11


class FrameMatch(NamedTuple):
    """Which prediction is which truth in one frame.

    Attributes:
        truth: (P,) index of the truth of each prediction, -1 for none.
        confidence: (P,) of the predictions.
        num_truths: G.
    """

    truth: np.ndarray
    confidence: np.ndarray
    num_truths: int


def evaluate_openlane(
    frames: Sequence[tuple[dict[str, Any], dict[str, Any]]],
    versions: Sequence[Version] = ("1.0", "2.1"),
) -> dict[str, float]:
    """Return OLS and its parts, each from 0 to 1.

    Args:
        frames: of each frame its ``annotation`` and ``predictions`` in the layout of OpenLane-V2,
            with the keys ``lane_centerline``, ``traffic_element``, ``topology_lclc`` and
            ``topology_lcte``.
        versions: of the topology scores.

    Returns:
        ``OLS``, ``DET_l``, ``DET_t``, ``TOP_ll`` and ``TOP_lt`` of the first version, ``F``, which
        OLS does not hold, and of each further version, as 2.1, ``OLS_2.1``, ``TOP_ll_2.1`` and
        ``TOP_lt_2.1``: the rest is the same in all.

    Raises:
        ValueError: there is no such version or no frame, or a frame lacks a score, holds a lane of
            fewer than two points, or a matrix does not fit the lanes and elements.
    """
    check_versions(versions, "evaluate_openlane")
    if not frames:
        raise ValueError("evaluate_openlane: expected at least one frame, got none")
    for number, (annotation, predictions) in enumerate(frames):
        check_frame(annotation, f"the annotation of frame {number}")
        check_frame(predictions, f"the predictions of frame {number}", scored=True)

    # By frame, then by threshold or attribute.
    lanes = [_lane_matches(*frame) for frame in frames]
    elements = [_element_matches(*frame) for frame in frames]
    det_l = np.mean([_average_precision([m[i] for m in lanes]) for i in range(len(lanes[0]))])
    det_t = np.mean([_average_precision([m[a] for m in elements]) for a in range(len(ATTRIBUTES))])
    lines = [(_points(annotation), _points(predictions)) for annotation, predictions in frames]
    scores = {"DET_l": float(det_l), "DET_t": float(det_t), "F": lane_f_score(lines)}
    together = [m[-1] for m in elements]
    for version in versions:
        top_ll = topology_score(frames, "topology_lclc", lanes, None, version)
        top_lt = topology_score(frames, "topology_lcte", lanes, together, version)
        # DET and F are of no version: they are computed once and said once.
        suffix = "" if version == versions[0] else f"_{version}"
        scores[f"TOP_ll{suffix}"] = top_ll
        scores[f"TOP_lt{suffix}"] = top_lt
        # Roots, for scores of topology are small: .020 and .170 in the published row.
        scores[f"OLS{suffix}"] = float(np.mean([det_l, det_t, np.sqrt(top_ll), np.sqrt(top_lt)]))
    return scores


def check_versions(versions: Sequence[str], name: str) -> None:
    """Check versions of the topology scores.

    Args:
        versions: at least one of ``Version``.
        name: of the caller, for errors.

    Raises:
        ValueError: there is no such version, or none at all.
    """
    # A text alone would be taken letter by letter.
    if isinstance(versions, str) or not versions or not set(versions) <= set(get_args(Version)):
        raise ValueError(f"{name}: expected versions out of {get_args(Version)}, got {versions!r}")


def match(distances: np.ndarray, confidence: np.ndarray, threshold: float) -> FrameMatch:
    """Give each prediction the truth that is nearest, by falling confidence, if still free.

    Args:
        distances: (G, P).
        confidence: (P,).
        threshold: the nearest truth must be nearer than this.
    """
    truth = np.full(len(confidence), -1)
    if len(distances):  # NumPy refuses the argmin of no truths
        # The nearest one only: a prediction whose truth is taken is not given the second nearest.
        nearest = distances.argmin(0)
        taken: set[int] = set()
        for prediction in np.argsort(-confidence, kind="stable"):
            candidate = int(nearest[prediction])
            if distances[candidate, prediction] < threshold and candidate not in taken:
                taken.add(candidate)
                truth[prediction] = candidate
    return FrameMatch(truth, confidence, len(distances))


def element_distances(truths: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """Return 1 - IoU of all pairs, (G, P), of boxes (G, 4) and (P, 4), corners in pixels."""
    overlaps = box_iou(torch.from_numpy(truths), torch.from_numpy(predictions)).numpy()
    # Two boxes without area overlap by 0 / 0.
    return 1 - np.nan_to_num(overlaps)


def _points(frame: dict[str, Any]) -> list[np.ndarray]:
    return [np.asarray(lane["points"]) for lane in frame["lane_centerline"]]


def _confidence(entries: list[dict[str, Any]]) -> np.ndarray:
    return np.array([entry["confidence"] for entry in entries], np.float64)


def _lane_matches(annotation: dict[str, Any], predictions: dict[str, Any]) -> list[FrameMatch]:
    """Return the matches of one frame's lanes, for each threshold."""
    distances = lane_distances(_points(annotation), _points(predictions))[1]
    confidence = _confidence(predictions["lane_centerline"])
    return [match(distances, confidence, threshold) for threshold in LANE_THRESHOLDS]


def _element_matches(annotation: dict[str, Any], predictions: dict[str, Any]) -> list[FrameMatch]:
    """Return the matches of one frame's elements for each attribute, and for all together."""
    boxes, attributes = [], []
    for frame in (annotation, predictions):
        entries = frame["traffic_element"]
        boxes.append(np.array([e["points"] for e in entries], np.float64).reshape(-1, 4))  # (k, 4)
        attributes.append(np.array([e["attribute"] for e in entries], int))
    distances = element_distances(*boxes)  # (G, P)
    confidence = _confidence(predictions["traffic_element"])
    matches = []
    # DET_t never compares a light with a sign; TOP_lt does, hence the last match of all together.
    for attribute in range(len(ATTRIBUTES)):
        rows, columns = (mask == attribute for mask in attributes)
        matches.append(match(distances[rows][:, columns], confidence[columns], ELEMENT_THRESHOLD))
    return [*matches, match(distances, confidence, ELEMENT_THRESHOLD)]


def _average_precision(matches: Sequence[FrameMatch]) -> float:
    """Return the interpolated average precision at 11 levels of recall, over all frames."""
    # One ranking of the predictions of all frames, while matches were made frame by frame.
    num_truths = sum(m.num_truths for m in matches)
    confidence = np.concatenate([m.confidence for m in matches])
    if not num_truths or not len(confidence):
        # An attribute that is neither there nor predicted is right.
        return float(not num_truths and not len(confidence))
    hits = np.concatenate([m.truth >= 0 for m in matches])
    hits = hits[np.argsort(-confidence, kind="stable")].cumsum()
    precision = hits / np.arange(1, len(hits) + 1)
    # In float32, 3 of 5 truths reach the level 0.6; in float64 they do not.
    recall = hits.astype(np.float32) / np.float32(num_truths)
    # 0, 0.1 .. 1 by way of float64, as the devkit has them.
    levels = (np.arange(NUM_RECALL_LEVELS) * 0.1).astype(np.float32)
    return float(np.mean([precision[recall >= level].max(initial=0) for level in levels]))


def confidence_cut_offs(matches: FrameMatch, *, as_released: bool = False) -> np.ndarray:
    """Return the confidences (10,) down to which 10, 20 .. 100 % of the frame's recall is kept.

    Empty if nothing is predicted: then nothing is kept, whatever the cut-off.
    """
    order = np.argsort(-matches.confidence, kind="stable")
    # The recall is in the order of `order`; the released script indexes the unsorted confidences.
    ranked = matches.confidence if as_released else matches.confidence[order]
    recall = (matches.truth[order] >= 0).cumsum() / max(matches.num_truths, 1)
    cut_offs = []
    for step in range(1, NUM_CUT_OFFS + 1):
        # Written out: np.quantile of NumPy 2 changes TOP, by up to 0.034 in single cases.
        position = len(recall) * (step / NUM_CUT_OFFS) - 1.5
        low = int(np.floor(position))
        # The closest observation as NumPy 1 has it, halves to the even index; NumPy 2 changed it.
        index = low if position == low and low % 2 == 0 else low + 1
        if len(recall):
            # The last place with this recall: what lies behind it up to the next hit is kept too.
            value = recall[min(max(index, 0), len(recall) - 1)]
            cut_offs.append(ranked[np.flatnonzero(recall == value)[-1]])
    return np.array(cut_offs)


def topology_score(
    frames: Sequence[tuple[dict[str, Any], dict[str, Any]]],
    key: Literal["topology_lclc", "topology_lcte"],
    lanes: Sequence[Sequence[FrameMatch]],
    elements: Sequence[FrameMatch] | None,
    version: Version,
) -> float:
    """Return the mean average precision of the vertices' edges, from 0 to 1.

    The mean is over the vertices of all frames together, so a frame with more lanes counts more.
    Frames whose true matrix has no rows or no columns are left out; without any other, the score
    is 0.

    Args:
        frames: annotation and predictions of each frame.
        key: of the matrix in both.
        lanes: of each frame the matches for each threshold of the lanes: the rows.
        elements: of each frame the matches of the elements, the columns; None if the columns are
            lanes as well.
        version: of the score.
    """
    precisions: list[float] = []
    for number, (annotation, predictions) in enumerate(frames):
        if not np.size(annotation[key]):
            continue
        truth = np.asarray(annotation[key], np.float64)
        for rows in lanes[number]:
            columns = rows if elements is None else elements[number]
            # An empty matrix may have come as [], see `check_frame`.
            scores = np.reshape(predictions[key], (len(rows.truth), len(columns.truth)))
            for kept_rows, kept_columns in _kept_predictions(rows, columns, version):
                edges = _edge_scores(truth, scores, kept_rows, kept_columns, version)
                # Lanes by where they lead and by what leads to them, elements by their lanes.
                pairs = [*zip(truth, edges, strict=True), *zip(truth.T, edges.T, strict=True)]
                precisions += [_vertex_precision(*pair) for pair in pairs]
    return float(np.mean(precisions)) if precisions else 0.0


def _kept_predictions(
    rows: FrameMatch, columns: FrameMatch, version: Version
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return which truth each prediction is once those below a cut-off are dropped, per cut-off."""
    if version == "2.1":
        return [(rows.truth, columns.truth)]
    kept = []
    for part in (rows, columns):
        cut_offs = confidence_cut_offs(part, as_released=version == "1.0-as-released")
        if not len(cut_offs):
            # Nothing is predicted, but each cut-off still counts with all edges missing.
            cut_offs = np.zeros(NUM_CUT_OFFS)
        kept.append([np.where(part.confidence >= c, part.truth, -1) for c in cut_offs])
    # The i-th cut-off of the rows goes with the i-th of the columns: each has its own confidences.
    return list(zip(*kept, strict=True))


def _edge_scores(
    truth: np.ndarray,
    scores: np.ndarray,
    rows: np.ndarray,
    columns: np.ndarray,
    version: Version,
) -> np.ndarray:
    """Return the scores of the edges between the true vertices, shaped as ``truth``."""
    # Edges count above 0.5: 1 ranks before all predicted ones, 0.5 and an epsilon behind them.
    missing = 0.5 + float(np.finfo(np.float32).eps) if version == "2.1" else 1.0
    # An edge that nothing was predicted for gets the opposite of the truth.
    edges = (1 - truth) * missing
    # From the predictions' order to that of the truths, of which none occurs twice (`match`).
    row_hits, column_hits = np.flatnonzero(rows >= 0), np.flatnonzero(columns >= 0)
    edges[np.ix_(rows[row_hits], columns[column_hits])] = scores[np.ix_(row_hits, column_hits)]
    return edges


def _vertex_precision(truth: np.ndarray, scores: np.ndarray) -> float:
    """Return the average precision of one vertex's edges, those with a score above 0.5."""
    predicted = np.flatnonzero(scores > 0.5)
    num_truths = np.count_nonzero(truth)
    # A vertex without edges is right if none was predicted, and wrong with any.
    if not num_truths or not len(predicted):
        return float(not num_truths and not len(predicted))
    hits = truth[predicted[np.argsort(-scores[predicted], kind="stable")]] > 0
    precision = hits.cumsum() / np.arange(1, len(hits) + 1)
    return float(precision[hits].sum() / num_truths)
