"""Submissions of driving scored from files: the original's records, and files that are none."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest

from internimage.integrations.openmmlab.driving.data.pickles import read_pickle, write_pickle
from tests.autonomous_driving.nuscenes_folder import token_of, write_folder
from tools.make_nuscenes_infos import write_infos
from tools.score_driving_submission import main

RECORDS = Path(__file__).parents[1] / "fixtures" / "parity" / "driving"


def write_maps(folder, name="missing_and_unknown_frames"):
    record = json.loads((RECORDS / f"hdmap_{name}.json").read_text())
    paths = folder / "submission.json", folder / "truth.json"
    paths[0].write_text(json.dumps(record["submission"]))
    paths[1].write_text(json.dumps(record["ann"]))
    return paths, record["expected"]


def write_lanes(folder, name="ols_basic", left_out=0):
    record = json.loads((RECORDS / f"{name}.json").read_text())
    truth = {tuple(frame["identifier"]): frame for frame in record["frames"]}
    frames = list(truth.items())[left_out:]
    results = {identifier: {"predictions": frame["predictions"]} for identifier, frame in frames}
    paths = folder / "submission.pkl", folder / "truth.pkl"
    write_pickle(paths[0], {"method": "", "results": results})
    write_pickle(paths[1], truth)
    return paths, record["expected"]


def run(capsys, submission, truth):
    code = main([str(submission), str(truth)])
    output = capsys.readouterr()
    return code, output.out, output.err


def test_maps_get_the_scores_of_the_original_and_missing_frames_are_counted(capsys, tmp_path):
    paths, expected = write_maps(tmp_path)
    code, out, err = run(capsys, *paths)
    scores = json.loads(out)
    assert (
        "warning: 1 of" in err and "warning: 1 frames of the submission are not in the truth" in err
    )
    assert code == 0 and scores["mAP"] == pytest.approx(expected["mAP"], abs=1e-6)
    assert scores["missing_frames"] == 1 and scores["unknown_frames"] == 1


def test_lanes_get_the_scores_of_the_original(capsys, tmp_path):
    paths, expected = write_lanes(tmp_path)
    code, out, _ = run(capsys, *paths)
    scores = json.loads(out)
    assert code == 0
    for name in ("OLS", "DET_l", "DET_t", "TOP_ll", "TOP_lt"):
        assert scores[name] == pytest.approx(expected[name], abs=1e-6)


def test_a_truth_with_all_its_points_scores_as_the_thinned_one(capsys, tmp_path):
    paths, _ = write_lanes(tmp_path)
    fine = read_pickle(paths[1])
    steps = np.linspace(0, 1, 201)[:, None]
    for frame in fine.values():
        for lane in frame["annotation"]["lane_centerline"]:
            first, last = np.asarray(lane["points"], float)[[0, -1]]
            # Dense near the start, so that all points have another mean distance than each 20th.
            lane["points"] = first + (last - first) * steps**3
    thin = copy.deepcopy(fine)
    for frame in thin.values():
        for lane in frame["annotation"]["lane_centerline"]:
            lane["points"] = lane["points"][::20]
    write_pickle(paths[1], fine)
    code, out, _ = run(capsys, *paths)
    write_pickle(paths[1], thin)
    assert code == 0 and out == run(capsys, *paths)[1]
    assert json.loads(out)["DET_l"] > 0


def test_a_submission_of_lanes_that_lacks_a_frame_is_refused(capsys, tmp_path):
    paths, _ = write_lanes(tmp_path, left_out=1)
    code, _, err = run(capsys, *paths)
    assert code == 2 and err.count("\n") == 1 and "got none for 1 of them" in err
    assert f"in {paths[0]}\n" in err


def test_frames_of_lanes_that_the_truth_does_not_have_are_counted(capsys, tmp_path):
    paths, _ = write_lanes(tmp_path)
    submission = read_pickle(paths[0])
    submission["results"]["val", "other", "1"] = {}
    write_pickle(paths[0], submission)
    code, _, err = run(capsys, *paths)
    assert code == 0 and "warning: 1 frames of the submission are not in the truth" in err


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([{"annotation": {}}], "'timestamp' of frame number 0 of segment s of the truth, got none"),
        ([{"timestamp": "a", "annotation": {}}], "'a' for timestamp, which is no whole number"),
        ([{"timestamp": 7, "annotation": {}}] * 2, "each timestamp once, got 7 again"),
        (
            [{"timestamp": 7, "annotation": {"divider": [[[0, 0], [float("nan"), 1]]]}}],
            "finite points and scores, got nan or inf in frame 7",
        ),
    ],
)
def test_a_truth_of_maps_that_is_not_whole_is_named_with_its_file(
    capsys, tmp_path, frames, message
):
    paths = tmp_path / "submission.json", tmp_path / "truth.json"
    paths[0].write_text('{"results": {}}')
    paths[1].write_text(json.dumps({"s": frames}))
    code, _, err = run(capsys, *paths)
    assert code == 2 and err.count("\n") == 1 and message in err and f"in {paths[1]}\n" in err


def test_a_grid_file_of_several_arrays_is_refused_and_unknown_ones_are_counted(capsys, tmp_path):
    paths = write_occupancy(tmp_path)
    grid = paths[0] / f"{token_of('scene-0003', 1)}.npz"
    with np.load(grid) as file:
        whole = file["arr_0"]
    np.savez(paths[0] / "another.npz", whole)
    code, out, err = run(capsys, *paths)
    assert code == 0 and json.loads(out)["mIoU"] == 1
    assert "warning: 1 frames of the submission are not in the truth" in err
    for arrays, names in (({"classes": whole, "flow": whole}, "classes, flow"), ({}, "none")):
        np.savez(grid, **arrays)
        code, _, err = run(capsys, *paths)
        assert code == 2 and f"one array, the grid, in {grid}, got {names}\n" in err


@pytest.mark.parametrize(
    ("submission", "truth", "message"),
    [
        ("{", "{}", "expected json"),
        ("[]", "{}", "expected a submission with results by frame, got []"),
        ('{"results": {}}', '{"s": [{"timestamp": 1}]}', "'annotation' of frame 1, got none"),
        ('{"results": {}}', "[]", "expected a truth of frames by segment, got []"),
        ('{"results": {}}', '{"s": [3]}', "segment s of the truth, got 3 for number 0"),
        ('{"results": {}}', '{"s": [{"timestamp": 7, "annotation": 5}]}', "frame 7"),
        ('{"results": {"1": {"vectors": [], "labels": []}}}', "{}", "frame 1 without scores"),
        (None, "{}", "expected a file, got none"),
    ],
)
def test_a_file_that_is_no_submission_is_one_line(capsys, tmp_path, submission, truth, message):
    paths = tmp_path / "submission.json", tmp_path / "truth.json"
    for path, text in zip(paths, (submission, truth), strict=True):
        if text is not None:
            path.write_text(text)
    code, _, err = run(capsys, *paths)
    assert code == 2 and err.count("\n") == 1 and message in err


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"vectors": None}, "lists of numbers for vectors, scores and labels of frame 9, got"),
        ({"vectors": [[[0, 0]]]}, "2 points (x, y) of each line of frame 9, got an array of shape"),
        (
            {"vectors": [[[0, 0, 0], [1, 1, 1]]]},
            "of each line of frame 9, got an array of shape (2",
        ),
        (
            {"vectors": [[[0, 0], [1]]]},
            "lists of numbers for vectors, scores and labels of frame 9",
        ),
        ({"scores": ["high"]}, "labels of frame 9, got others: could not convert"),
        ({"labels": ["a"]}, "labels of frame 9, got others: could not convert"),
        (
            {"labels": [1.5]},
            "a whole number as label for each line of frame 9, got [0.5] and [1.5]",
        ),
        ({"labels": 1}, "a whole number as label for each line of frame 9"),
        ({"labels": [None]}, "a whole number as label for each line of frame 9"),
        ({"labels": [float("inf")]}, "each line of frame 9, got [0.5] and [inf]"),
        ({"labels": [9]}, "expected labels 0 to 2, got 9 in frame 9"),
        ({"scores": [7.0]}, "expected scores 0-1, got 7 in frame 9"),
        ({"vectors": [[[0, 0], [1e9, 0]]]}, "within 10,000 m of the vehicle in frame 9, got one"),
    ],
)
def test_a_frame_of_maps_that_is_not_whole_is_named(capsys, tmp_path, entry, message):
    paths = tmp_path / "submission.json", tmp_path / "truth.json"
    whole = {"vectors": [[[0, 0], [1, 1]]], "scores": [0.5], "labels": [1]}
    paths[0].write_text(json.dumps({"results": {"9": whole | entry}}))
    paths[1].write_text("{}")
    code, _, err = run(capsys, *paths)
    assert code == 2 and err.count("\n") == 1 and message in err and str(paths[0]) in err


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        (None, None, "expected predictions in frame "),
        ("predictions", None, "in the predictions of frame {}, got no lane_centerline"),
        ("lane_centerline", None, "a list for lane_centerline in the predictions of frame {}, got"),
        ("lane_centerline", [1], "lane_centerline number 0 of the predictions of frame {}, got 1"),
        ("confidence", "high", "of the predictions of frame {}, got 'high'"),
        ("confidence", 7, "expected a confidence 0-1 in lane_centerline "),
    ],
)
def test_a_frame_of_lanes_that_is_not_whole_is_named(capsys, tmp_path, part, value, message):
    paths, _ = write_lanes(tmp_path)
    submission = read_pickle(paths[0])
    name, frame = next(iter(submission["results"].items()))
    if part is None:
        submission["results"][name] = value
    elif part == "predictions":
        frame[part] = value
    elif part == "confidence":
        frame["predictions"]["lane_centerline"][0][part] = value
    else:
        frame["predictions"][part] = value
    write_pickle(paths[0], submission)
    code, _, err = run(capsys, *paths)
    assert code == 2 and err.count("\n") == 1
    assert message.format(name) in err and str(name) in err and str(paths[0]) in err


def test_lanes_and_maps_are_not_mixed(capsys, tmp_path):
    code, _, err = run(capsys, tmp_path / "a.pkl", tmp_path / "b.json")
    assert code == 2 and "two .pkl files (lanes) or two .json files (maps)" in err


def write_occupancy(folder):
    """Writes a small set, and its validation frames' own voxels as a submission."""
    root = write_folder(folder)
    write_infos(root, can_bus=root.parent / "can_bus", version="v1.0-mini")
    submission = folder / "submission"
    submission.mkdir()
    for path in (root / "gts" / "scene-0003").rglob("labels.npz"):
        with np.load(path) as labels:
            np.savez(submission / f"{path.parent.name}.npz", labels["semantics"])
    return submission, root / "occ_infos_temporal_val.pkl"


def test_the_truth_as_a_submission_of_occupancy_is_perfect_and_a_wrong_voxel_is_not(
    capsys, tmp_path
):
    paths = write_occupancy(tmp_path)
    code, out, _ = run(capsys, *paths)
    assert code == 0 and json.loads(out)["mIoU"] == 1
    grid = paths[0] / f"{token_of('scene-0003', 1)}.npz"
    with np.load(grid) as file:
        np.savez(grid, (file["arr_0"] + 1) % 18)
    code, out, _ = run(capsys, *paths)
    assert code == 0 and 0.5 < json.loads(out)["mIoU"] < 0.75


@pytest.mark.slow
def test_a_submission_of_occupancy_that_lacks_a_frame_or_holds_no_grid_is_refused(capsys, tmp_path):
    paths = write_occupancy(tmp_path)
    grid = paths[0] / f"{token_of('scene-0003', 1)}.npz"
    grid.write_bytes(b"no archive")
    code, _, err = run(capsys, *paths)
    assert code == 2 and f"expected a grid in {grid}, got none\n" in err and err.count("\n") == 1
    with grid.open("wb") as file:
        np.save(file, np.zeros((2, 2, 2), np.uint8))  # without an archive around it
    code, _, err = run(capsys, *paths)
    assert code == 2 and f"expected a grid in {grid}, got none\n" in err and err.count("\n") == 1
    np.savez(grid, np.zeros((2, 2, 2), np.uint8))
    code, _, err = run(capsys, *paths)
    assert code == 2 and "expected the prediction in the truth's shape (6, 8, 3)" in err
    assert f"frame {token_of('scene-0003', 1)}" in err and str(grid) in err
    grid.unlink()
    code, _, err = run(capsys, *paths)
    assert code == 2 and "expected predictions for 4 frames" in err
    assert f"got none for 1 of them, the first {token_of('scene-0003', 1)}" in err
