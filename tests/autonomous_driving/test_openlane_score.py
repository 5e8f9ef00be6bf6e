"""OLS: the records of the original, and rules told in loops."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest

from internimage.integrations.openmmlab.driving.data.pickles import read_pickle
from internimage.integrations.openmmlab.driving.metrics.lane_distances import (
    FAR,
    lane_distances,
)
from internimage.integrations.openmmlab.driving.metrics.openlane import (
    LANE_THRESHOLDS,
    FrameMatch,
    confidence_cut_offs,
    element_distances,
    evaluate_openlane,
    match,
)
from internimage.integrations.openmmlab.driving.metrics.openlane_metric import (
    OpenLaneMetric,
    evaluate_submission,
    make_submission,
)

RECORDS = Path(__file__).parents[1] / "fixtures" / "parity" / "driving"
SORTED = ("basic", "far_and_noisy", "no_traffic_elements", "perfect")


def read_record(name):
    record = json.loads((RECORDS / f"ols_{name}.json").read_text())
    frames = [(frame["annotation"], frame["predictions"]) for frame in record["frames"]]
    return frames, record


def points_of(frame):
    return [lane["points"] for lane in frame["lane_centerline"]]


@pytest.mark.parametrize("name", SORTED)
def test_all_scores_are_those_of_the_original(name):
    frames, record = read_record(name)
    scores = evaluate_openlane(frames, ("1.0", "1.0-as-released"))
    assert {key: scores[key] for key in record["expected"]} == pytest.approx(
        record["expected"], abs=1e-6
    )
    # Predictions that come by falling confidence hide the fault.
    assert scores["TOP_ll_1.0-as-released"] == scores["TOP_ll"]


def test_the_fault_of_the_released_cut_offs_shows_in_unsorted_predictions():
    frames, record = read_record("unsorted_predictions")
    released = evaluate_openlane(frames, ("1.0-as-released",))
    assert {key: released[key] for key in record["expected"]} == pytest.approx(
        record["expected"], abs=1e-6
    )


def by_falling_confidence(predictions):
    order, columns = (
        np.argsort([-entry["confidence"] for entry in predictions[kind]], kind="stable")
        for kind in ("lane_centerline", "traffic_element")
    )
    return {
        "lane_centerline": [predictions["lane_centerline"][i] for i in order],
        "traffic_element": [predictions["traffic_element"][i] for i in columns],
        "topology_lclc": np.array(predictions["topology_lclc"])[np.ix_(order, order)],
        "topology_lcte": np.array(predictions["topology_lcte"])[np.ix_(order, columns)],
    }


@pytest.mark.parametrize("version", ["1.0", "2.1"])
def test_the_order_of_the_predictions_does_not_change_the_scores(version):
    frames, _ = read_record("unsorted_predictions")
    ordered = [(truth, by_falling_confidence(predictions)) for truth, predictions in frames]
    assert evaluate_openlane(frames, (version,)) == pytest.approx(
        evaluate_openlane(ordered, (version,)), abs=1e-12
    )


@pytest.mark.parametrize("name", [*SORTED, "unsorted_predictions"])
def test_distances_and_matches_of_the_lanes_are_those_of_the_original(name):
    frames, record = read_record(name)
    for (truth, predictions), distances, matching in zip(
        frames, record["detail"]["distances"], record["detail"]["matching"], strict=True
    ):
        chamfer, frechet = lane_distances(points_of(truth), points_of(predictions))
        np.testing.assert_allclose(chamfer, distances["chamfer_relaxed"], atol=1e-5)
        np.testing.assert_allclose(frechet, distances["frechet_relaxed_masked"], atol=1e-5)
        confidence = np.array([lane["confidence"] for lane in predictions["lane_centerline"]])
        for threshold in LANE_THRESHOLDS:
            matches = match(frechet, confidence, threshold)
            expected = matching[f"lane_centerline_{threshold}_idx_match_gt"]
            assert [None if i < 0 else i for i in matches.truth] == expected
            np.testing.assert_allclose(
                confidence_cut_offs(matches, as_released=True),
                matching[f"lane_centerline_{threshold}_confidence_thresholds"],
            )


def test_distances_of_the_boxes_are_those_of_the_original():
    frames, record = read_record("basic")
    for (truth, predictions), distances in zip(frames, record["detail"]["distances"], strict=True):
        boxes = [
            np.reshape([e["points"] for e in frame["traffic_element"]], (-1, 4))
            for frame in (truth, predictions)
        ]
        np.testing.assert_allclose(
            element_distances(*boxes), np.reshape(distances["iou_distance"], (len(boxes[0]), -1)),
            atol=1e-5,
        )  # fmt: skip


def test_the_frechet_distance_is_that_of_its_definition():
    rng = np.random.default_rng(0)
    truth = np.cumsum(rng.random((6, 3)), 0)
    lines = [truth[:n] + rng.normal(0, 0.4, (n, 3)) for n in (4, 6, 6)]

    def reach(distances, i, j):
        if i == j == 0:
            return distances[0, 0]
        ways = [(i - 1, j), (i, j - 1), (i - 1, j - 1)]
        before = min(reach(distances, *way) for way in ways if min(way) >= 0)
        return max(before, distances[i, j])

    relaxation = 1 - 0.005 * np.linalg.norm(truth, axis=1).min()
    expected = [
        reach(np.linalg.norm(truth[:, None] - line, axis=2), 5, len(line) - 1) for line in lines
    ]
    chamfer, frechet = lane_distances([truth], lines)
    np.testing.assert_allclose(frechet[0], np.array(expected) * relaxation)
    # The way matters: the same line, driven the other way, is another lane.
    backwards = lane_distances([truth], [truth[::-1]])[1][0, 0]
    assert backwards > 1
    assert backwards != FAR


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 1.0])
@pytest.mark.parametrize("num_predictions", [1, 4, 5, 10, 15, 25])
def test_cut_offs_follow_the_closest_observation(share, num_predictions):
    # Every prediction hits, so the recall at place i is i + 1, and its quantile names the place.
    confidence = np.linspace(0.9, 0.1, num_predictions)
    matches = FrameMatch(np.arange(num_predictions), confidence, num_predictions)
    cut_off = confidence_cut_offs(matches)[round(share * 10) - 1]
    place = num_predictions * share - 1.5
    below = int(np.floor(place))
    # The place to be rounded up unless it is whole and even.
    expected = below if place == below and below % 2 == 0 else below + 1
    assert cut_off == confidence[min(max(expected, 0), num_predictions - 1)]


def perfect(truth):
    answer = copy.deepcopy(truth)
    for kind in ("lane_centerline", "traffic_element"):
        for entry in answer[kind]:
            entry["confidence"] = 1.0
    return answer


def test_the_truth_as_prediction_is_perfect_in_both_versions():
    frames = [(truth, perfect(truth)) for truth, _ in read_record("basic")[0]]
    scores = evaluate_openlane(frames)
    assert scores == {key: 1.0 for key in scores}
    assert {"OLS", "OLS_2.1"} <= set(scores)


def test_a_missing_edge_costs_less_in_the_later_version():
    truth, _ = read_record("basic")[0][0]
    answer = perfect(truth)
    dropped = answer["lane_centerline"].pop()
    assert dropped["id"] == truth["lane_centerline"][-1]["id"]
    for key in ("topology_lclc", "topology_lcte"):
        answer[key] = np.array(answer[key], float)[:-1] * 0.9
    answer["topology_lclc"] = answer["topology_lclc"][:, :-1]
    scores = evaluate_openlane([(truth, answer)])
    # An edge to the lane that is missing ranks before all found ones there, behind them here.
    assert scores["TOP_ll"] < scores["TOP_ll_2.1"] < 1


def test_frames_without_any_traffic_element_are_scored():
    truth, _ = read_record("basic")[0][0]
    bare = {**truth, "traffic_element": [], "topology_lcte": [[] for _ in truth["topology_lcte"]]}
    scores = evaluate_openlane([(bare, perfect(bare))])
    assert scores["DET_t"] == 1
    assert scores["TOP_lt"] == 0


def without_confidence(frame):
    del frame["lane_centerline"][0]["confidence"]


def with_one_point(frame):
    frame["lane_centerline"][0]["points"] = frame["lane_centerline"][0]["points"][:1]


def with_a_small_matrix(frame):
    frame["topology_lcte"] = frame["topology_lcte"][1:]


def with_an_unknown_attribute(frame):
    frame["traffic_element"][0]["attribute"] = 13


def with_an_edge_that_is_no_number(frame):
    frame["topology_lclc"] = np.full((7, 7), np.nan)


def with_an_edge_beyond_one(frame):
    frame["topology_lcte"] = np.full((7, 5), 1.5)


def with_a_box_upside_down(frame):
    frame["traffic_element"][0]["points"] = frame["traffic_element"][0]["points"][::-1]


def with_a_lane_that_is_nowhere(frame):
    frame["lane_centerline"][0]["points"] = np.full((11, 3), np.nan)


def without_a_matrix(frame):
    del frame["topology_lclc"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            without_confidence,
            "for confidence in lane_centerline 0 of the predictions of frame 0",
        ),
        (with_one_point, r"at least two points .* got an array \(1, 3\)"),
        (with_a_small_matrix, r"topology_lcte of shape \(7, 5\)"),
        (with_an_unknown_attribute, "an attribute 0 to 12 in traffic_element .* got 13"),
        (with_an_edge_that_is_no_number, "topology_lclc of numbers 0-1 in .* got nan"),
        (with_an_edge_beyond_one, "topology_lcte of numbers 0-1 in .* got 1.5"),
        (with_a_box_upside_down, "upper left corner before the lower right one in"),
        (with_a_lane_that_is_nowhere, "finite numbers in lane_centerline 0 of"),
        (without_a_matrix, "in the predictions of frame 0, got no topology_lclc"),
    ],
)
def test_a_prediction_that_is_not_whole_is_named(spoil, message):
    truth, _ = read_record("basic")[0][0]
    answer = perfect(truth)
    spoil(answer)
    with pytest.raises(ValueError, match=message):
        evaluate_openlane([(truth, answer)])


def test_versions_and_frames_that_do_not_exist_are_named():
    frames, _ = read_record("basic")
    with pytest.raises(ValueError, match="expected versions out of .*'3.0'"):
        evaluate_openlane(frames, ("3.0",))
    with pytest.raises(ValueError, match="at least one frame"):
        evaluate_openlane([])


def test_a_submission_scores_as_its_frames_and_must_hold_all_of_them():
    frames, record = read_record("basic")
    names = [tuple(frame["identifier"]) for frame in record["frames"]]
    answers = dict(zip(names, (predictions for _, predictions in frames), strict=True))
    truths = dict(zip(names, (truth for truth, _ in frames), strict=True))
    submission = make_submission(answers, {"method": "tiny", "authors": ["A"]})
    assert submission["country / region"] == ""
    assert evaluate_submission(submission, truths)["OLS"] == pytest.approx(
        record["expected"]["OLS"], abs=1e-6
    )
    del submission["results"][names[1]]
    with pytest.raises(ValueError, match=rf"none for 1 of them, the first .*{names[1][2]}"):
        evaluate_submission(submission, truths)
    with pytest.raises(ValueError, match="expected fields out of"):
        make_submission(answers, {"colour": "red"})


def sample_of(identifier, truth, answer):
    """Return what a model hands to the metric, of two frames in the data set's layout."""
    lanes = {}
    for name, frame in (("gt_lanes", truth), ("pred_lanes", answer)):
        elements = frame["traffic_element"]
        lanes[name] = {
            "lanes": points_of(frame),
            "boxes": np.reshape([e["points"] for e in elements], (-1, 4)),
            "attributes": [e["attribute"] for e in elements],
            "topology_lclc": frame["topology_lclc"],
            "topology_lcte": frame["topology_lcte"],
        }
    lanes["pred_lanes"]["scores"] = [e["confidence"] for e in answer["lane_centerline"]]
    lanes["pred_lanes"]["box_scores"] = [e["confidence"] for e in answer["traffic_element"]]
    return {"token": "-".join(identifier[1:]), "identifier": identifier, **lanes}


def test_the_metric_scores_samples_and_writes_the_submission(tmp_path):
    frames, record = read_record("basic")
    names = [tuple(frame["identifier"]) for frame in record["frames"]]
    metric = OpenLaneMetric(output_dir=str(tmp_path), submission={"method": "tiny"})
    for name, frame in zip(names, frames, strict=True):
        metric.process(None, [sample_of(name, *frame)])
    scores = metric.evaluate(len(frames))
    assert scores["openlane/OLS"] == pytest.approx(record["expected"]["OLS"], abs=1e-6)
    submission = read_pickle(tmp_path / "submission.pkl")
    assert submission["method"] == "tiny"
    truths = dict(zip(names, (truth for truth, _ in frames), strict=True))
    assert evaluate_submission(submission, truths)["OLS_2.1"] == scores["openlane/OLS_2.1"]
    answer = submission["results"][names[0]]["predictions"]
    ids = [entry["id"] for kind in list(answer)[:2] for entry in answer[kind]]
    assert len(set(ids)) == len(ids)


def test_a_sample_without_scores_or_truth_is_named():
    frames, _ = read_record("basic")
    sample = sample_of(("val", "0", "1"), *frames[0])
    del sample["pred_lanes"]["box_scores"]
    with pytest.raises(ValueError, match="got no box_scores"):
        OpenLaneMetric().process(None, [sample])
    sample["pred_lanes"]["box_scores"] = [0.5]
    with pytest.raises(ValueError, match="expected 7 box_scores, as many as boxes, got 1"):
        OpenLaneMetric().process(None, [sample])
    sample = sample_of(("test", "0", "1"), *frames[0])
    del sample["gt_lanes"]
    with pytest.raises(ValueError, match="expected an annotation to score frame 0-1, got none"):
        OpenLaneMetric().process(None, [sample])
    with pytest.raises(ValueError, match="expected an output_dir with format_only"):
        OpenLaneMetric(format_only=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"versions": ("1.1",)}, "expected versions out of .* got \\('1.1',\\)"),
        ({"versions": "2.1"}, "expected versions out of .* got '2.1'"),
        ({"versions": ()}, "expected versions out of .* got \\(\\)"),
        ({"submission": {"team": "tiny"}}, r"expected fields out of .* got \['team'\]"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_before_the_run(settings, message):
    with pytest.raises(ValueError, match=f"OpenLaneMetric: {message}"):
        OpenLaneMetric(**settings)


def test_boxes_without_area_do_not_overlap():
    boxes = np.array([[1.0, 1, 1, 1], [0, 0, 2, 2]])
    np.testing.assert_array_equal(element_distances(boxes, boxes), [[1, 1], [1, 0]])
