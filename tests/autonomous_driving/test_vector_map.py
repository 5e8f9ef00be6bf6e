"""Average precision of vectorised maps: the records of the original, and rules told in loops."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from internimage.integrations.openmmlab.driving.data.map_elements import (
    MapElements,
    elements_from_annotation,
)
from internimage.integrations.openmmlab.driving.metrics.vector_map import (
    average_precision,
    chamfer_distance,
    elements_from_submission,
    resample_polyline,
    score_vector_maps,
)
from internimage.integrations.openmmlab.driving.metrics.vector_map_metric import VectorMapMetric

RECORDS = Path(__file__).parents[1] / "fixtures" / "parity" / "driving"


def read_record(name):
    record = json.loads((RECORDS / f"hdmap_{name}.json").read_text())
    truth = {
        frame["timestamp"]: elements_from_annotation(frame["annotation"])
        for frames in record["ann"].values()
        for frame in frames
    }
    results = record["submission"]["results"]
    predictions = {token: elements_from_submission(token, results[token]) for token in results}
    return truth, predictions, record["expected"]


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [
        ("basic", 1e-6),
        ("noisy", 1e-6),
        ("missing_and_unknown_frames", 1e-6),
        ("class_without_gt", 1e-6),
        ("tied_scores", 0.03),  # the original leaves the order of equal scores open
    ],
)
def test_scores_are_those_of_the_original(name, tolerance):
    truth, predictions, expected = read_record(name)
    scores = score_vector_maps(truth, predictions)
    assert scores["mAP"] == pytest.approx(expected["mAP"], abs=tolerance)
    assert scores["AP"] == pytest.approx(expected["AP"], abs=tolerance)
    for name, values in expected["per_class"].items():
        assert scores["per_class"][name] == pytest.approx(values, abs=tolerance)


def test_polylines_are_resampled_and_measured_as_in_the_original():
    with np.load(RECORDS / "hdmap_chamfer.npz") as record:
        for i in range(20):
            first, second = (resample_polyline(record[f"{side}{i}"]) for side in "ab")
            np.testing.assert_allclose(first, record[f"ra{i}"], atol=1e-9)
            np.testing.assert_allclose(second, record[f"rb{i}"], atol=1e-9)
            assert chamfer_distance(first, second) == pytest.approx(record[f"cd{i}"], abs=1e-9)


def test_frames_that_are_missing_and_unknown_are_counted():
    truth, predictions, _ = read_record("missing_and_unknown_frames")
    scores = score_vector_maps(truth, predictions)
    assert scores["missing_frames"] == len([token for token in truth if token not in predictions])
    assert scores["unknown_frames"] == len([token for token in predictions if token not in truth])
    assert scores["missing_frames"] and scores["unknown_frames"]


def test_the_truth_as_prediction_is_perfect():
    truth, _, _ = read_record("basic")
    scores = score_vector_maps(truth, truth)
    assert scores["mAP"] == pytest.approx(1.0, abs=1e-12)


def one_frame(*lines):
    """Return elements of class 1 from (points, score) pairs."""
    return MapElements(
        polylines=[np.array(points, float) for points, _ in lines],
        labels=np.ones(len(lines), int),
        scores=np.array([score for _, score in lines], float),
    )


def test_a_line_as_far_as_the_threshold_is_right_and_a_second_one_on_the_same_truth_is_not():
    truth = {"a": one_frame(([[0, 0], [8, 0]], 1.0))}
    predicted = {"a": one_frame(([[0, 0.5], [8, 0.5]], 0.9), ([[0, 0], [8, 0]], 0.8))}
    scores = score_vector_maps(truth, predicted)["per_class"]["divider"]
    assert scores["AP@0.5"] == 1.0  # the first one took the truth; the second cannot lower this
    predicted["a"]["polylines"][0][:, 1] = 0.51
    scores = score_vector_maps(truth, predicted)["per_class"]["divider"]
    assert scores["AP@0.5"] == 0.5 and scores["AP@1.0"] == 1.0


def test_the_area_is_that_of_the_best_precision_at_or_beyond_each_recall():
    generator = np.random.default_rng(3)
    for _ in range(5):
        right, scores = generator.random(30) < 0.5, generator.permutation(30) / 30
        area, hits = 0.0, 0
        curve = []
        for rank, index in enumerate(np.argsort(-scores), start=1):
            hits += right[index]
            curve.append((hits, hits / rank))
        for hit in range(1, right.sum() + 1):
            area += max(precision for hits, precision in curve if hits >= hit) / 40
        assert average_precision(right, scores, 40) == pytest.approx(area, abs=1e-12)


@pytest.mark.parametrize("missing", ["vectors", "scores", "labels"])
def test_a_submission_without_scores_is_refused_by_the_frame(missing):
    result = {"vectors": [[[0, 0], [1, 1]]], "scores": [0.5], "labels": [1]}
    del result[missing]
    with pytest.raises(ValueError, match=f"frame 17 without {missing}"):
        elements_from_submission("17", result)


def test_as_many_scores_as_lines_are_wanted_and_two_points_of_each_line():
    with pytest.raises(ValueError, match="frame 17"):
        elements_from_submission("17", {"vectors": [[[0, 0], [1, 1]]], "scores": [], "labels": [1]})
    truth = {"a": one_frame(([[0, 0], [8, 0]], 1.0))}
    with pytest.raises(ValueError, match="at least 2"):
        score_vector_maps(truth, {"a": one_frame(([[0, 0]], 1.0))})
    with pytest.raises(ValueError, match="expected labels 0 to 2, got 3"):
        score_vector_maps(truth, {"a": {**truth["a"], "labels": np.array([3])}})


def test_true_lines_of_one_point_are_left_out():
    elements = elements_from_annotation({"divider": [[[0, 0, 0]], [[0, 0, 0], [1, 0, 0]]]})
    assert len(elements["polylines"]) == 1 and elements["labels"].tolist() == [1]


@pytest.mark.parametrize("broken", ["scores", "vectors"])
def test_scores_and_points_that_are_no_numbers_are_refused(broken):
    result = {"vectors": [[[0, 0], [1, 1]]], "scores": [0.5], "labels": [1]}
    result[broken] = [float("nan")] if broken == "scores" else [[[0, 0], [float("nan"), 1]]]
    with pytest.raises(ValueError, match="finite points and scores.* in frame 17"):
        elements_from_submission("17", result)


def test_a_label_of_no_class_is_refused_before_the_run_goes_on():
    line = one_frame(([[0, 0], [8, 0]], 1.0))
    sample = {"token": "17", "gt_polylines": line, "pred_polylines": line}
    VectorMapMetric().process(None, [sample])
    sample["pred_polylines"] = {**line, "labels": np.array([3])}
    with pytest.raises(ValueError, match="expected labels 0 to 2, got 3 in frame 17"):
        VectorMapMetric().process(None, [sample])
