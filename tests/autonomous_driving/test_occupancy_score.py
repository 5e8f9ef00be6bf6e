"""The scores of occupancy against the benchmark's own, and against plain loops."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from internimage.integrations.openmmlab.driving.metrics import scene_metric
from internimage.integrations.openmmlab.driving.metrics.occupancy import (
    confusion_matrix,
    f_score,
    iou_per_class,
    mean_iou,
)
from internimage.integrations.openmmlab.driving.metrics.occupancy_metric import OccupancyMetric

RECORDS = Path(__file__).parents[1] / "fixtures" / "parity" / "driving"
NAMES = ("basic", "absent_classes", "ignore255", "full_grid", "all_free")


def _frames(record, mask):
    for index in range(int(record["num_frames"])):
        seen = None if mask == "none" else record[f"f{index}_mask_{mask}"].astype(bool)
        yield record[f"f{index}_pred"], record[f"f{index}_gt"], seen


@pytest.mark.parametrize("mask", ["none", "lidar", "camera"])
@pytest.mark.parametrize("name", NAMES)
def test_the_scores_are_those_of_the_benchmark(name, mask):
    with np.load(RECORDS / f"occ_{name}.npz") as record:
        confusion = sum(confusion_matrix(*frame) for frame in _frames(record, mask))
        np.testing.assert_array_equal(confusion, record[f"{mask}_hist"])
        np.testing.assert_allclose(iou_per_class(confusion), record[f"{mask}_iou"], atol=1e-9)
        assert 100 * mean_iou(confusion) == pytest.approx(float(record[f"{mask}_miou"]), abs=1e-9)
        scores = [f_score(*frame) for frame in _frames(record, mask)]
        np.testing.assert_allclose(scores, record[f"{mask}_fscore_frames"], atol=1e-6)
        assert np.mean(scores, 0)[2] == pytest.approx(float(record[f"{mask}_fscore"]), abs=1e-6)
        wider = [f_score(*frame, threshold=0.6)[2] for frame in _frames(record, mask)]
        assert np.mean(wider) == pytest.approx(float(record[f"{mask}_fscore_thr06"]), abs=1e-6)


def test_the_f_score_is_that_of_loops_over_all_pairs_of_points():
    rng = np.random.default_rng(1)
    prediction, truth = rng.choice([4, 17, 255], (2, 5, 6, 4), p=[0.1, 0.8, 0.1]).astype(np.uint8)
    points = [
        [(0.5 * x, 0.5 * y, 0.5 * z) for x, y, z in np.ndindex(5, 6, 4) if grid[x, y, z] == 4]
        for grid in (prediction, truth)
    ]
    shares = [
        np.mean([min(np.hypot.reduce(np.subtract(a, b)) for b in others) < 0.8 for a in own])
        for own, others in (points, points[::-1])
    ]
    found = f_score(prediction, truth, None, threshold=0.8, voxel_size=0.5, origin=(0, 0, 0))
    expected = (*shares, 2 * shares[0] * shares[1] / sum(shares))
    assert 0.1 < expected[2] < 0.9
    assert found == pytest.approx(expected)


def test_the_scores_leave_their_arguments_as_they_are():
    rng = np.random.default_rng(2)
    prediction, truth = rng.integers(0, 18, (2, 4, 4, 4), dtype=np.uint8)
    copies = prediction.copy(), truth.copy()
    mask = rng.integers(0, 2, (4, 4, 4)).astype(bool)
    f_score(prediction, truth, mask)
    confusion_matrix(prediction, truth, mask)
    np.testing.assert_array_equal((prediction, truth), copies)


def test_a_set_in_which_nothing_is_seen_has_no_mean():
    assert np.isnan(mean_iou(np.zeros((18, 18), np.int64)))


@pytest.mark.parametrize(
    ("prediction", "mask", "message"),
    [
        (np.zeros((2, 2, 2), np.uint8), None, r"expected the prediction in the truth's shape"),
        (np.zeros((2, 2, 3), np.uint8), np.ones((2, 2, 2), bool), "expected the mask in the"),
        (np.zeros((2, 2, 3), np.uint8), np.ones((2, 2, 3), np.uint8), "expected a mask of bool"),
        (np.full((2, 2, 3), 18, np.uint8), None, "expected predictions of 0-17, got 18"),
    ],
)
def test_grids_that_do_not_fit_are_an_error(prediction, mask, message):
    with pytest.raises(ValueError, match=message):
        confusion_matrix(prediction, np.zeros((2, 2, 3), np.uint8), mask)


def _sample(token, prediction, truth, mask):
    return {
        **{"token": token, "pred_semantics": prediction, "gt_semantics": truth},
        **{"mask_camera": mask, "mask_lidar": ~mask},
    }


def test_a_run_is_scored_over_all_its_frames_and_each_frame_once():
    with np.load(RECORDS / "occ_basic.npz") as record:
        frames = list(_frames(record, "camera"))
        metric = OccupancyMetric(with_f_score=True)
        samples = [_sample(f"token{i}", *frame) for i, frame in enumerate(frames)]
        metric.process(None, samples)
        metric.process(None, samples[:1])  # seen again
        scores = metric.evaluate(len(frames))
        assert scores["occ3d/mIoU"] == pytest.approx(float(record["camera_miou"]), abs=1e-9)
        assert scores["occ3d/IoU_car"] == pytest.approx(100 * record["camera_iou"][4], abs=1e-7)
        assert scores["occ3d/F"] == pytest.approx(float(record["camera_fscore"]), abs=1e-6)


def test_the_mask_of_a_run_chooses_the_voxels():
    rng = np.random.default_rng(3)
    prediction, truth = rng.integers(0, 18, (2, 6, 6, 6), dtype=np.uint8)
    mask = rng.integers(0, 2, (6, 6, 6)).astype(bool)
    for name, seen in (("camera", mask), ("lidar", ~mask), ("none", None)):
        metric = OccupancyMetric(mask=name)
        metric.process(None, [_sample("token", prediction, truth, mask)])
        expected = 100 * mean_iou(confusion_matrix(prediction, truth, seen))
        assert metric.evaluate(1)["occ3d/mIoU"] == pytest.approx(expected)


def test_a_class_seen_nowhere_has_no_score():
    grid = np.full((2, 2, 2), 4, np.uint8)
    metric = OccupancyMetric()
    metric.process(None, [_sample("token", grid, grid, np.ones(grid.shape, bool))])
    assert metric.evaluate(1) == {"occ3d/mIoU": 100.0, "occ3d/IoU_car": 100.0}


def test_frames_in_which_no_voxel_counts_are_left_out_and_counted():
    rng = np.random.default_rng(4)
    prediction, truth = rng.integers(0, 18, (2, 4, 4, 4), dtype=np.uint8)
    every = np.ones(truth.shape, bool)
    bare = [
        _sample("unseen", prediction, truth, ~every),
        _sample("unlabelled", prediction, np.full_like(truth, 255), every),
    ]
    alone, metric = OccupancyMetric(with_f_score=True), OccupancyMetric(with_f_score=True)
    alone.process(None, [_sample("token", prediction, truth, every)])
    metric.process(None, [*bare, _sample("token", prediction, truth, every)])
    expected = alone.evaluate(1)
    assert 0 < expected["occ3d/F"]
    with pytest.warns(UserWarning, match="2 of 3 frames have no voxel .* the first unseen"):
        assert metric.evaluate(3) == expected
    metric.process(None, bare)
    with pytest.raises(ValueError, match=r"expected voxels that count \(mask camera\), got none"):
        metric.evaluate(2)


def test_a_submission_is_a_grid_a_frame_and_their_list(tmp_path):
    rng = np.random.default_rng(4)
    grids = rng.integers(0, 18, (2, 4, 4, 4), dtype=np.uint8)
    metric = OccupancyMetric(
        format_only=True, output_dir=str(tmp_path / "out"), submission={"method": "ours"}
    )
    metric.process(None, [{"token": f"t{i}", "pred_semantics": g} for i, g in enumerate(grids)])
    assert metric.evaluate(2) == {}
    for index, grid in enumerate(grids):
        with np.load(tmp_path / "out" / f"t{index}.npz") as file:
            np.testing.assert_array_equal(file["arr_0"], grid)
            assert file["arr_0"].dtype == np.uint8
    listed = json.loads((tmp_path / "out" / "submission.json").read_text())
    assert listed == {
        "meta": {"method": "ours"},
        "results": {"t0": "t0.npz", "t1": "t1.npz"},
    }


def test_predictions_that_lack_a_frame_are_an_error():
    grid = np.zeros((2, 2, 2), np.uint8)
    metric = OccupancyMetric(mask="none")
    metric.process(None, [_sample("token", grid, grid, grid.astype(bool))])
    with pytest.raises(ValueError, match="expected predictions for 2 frames, got 1"):
        metric.evaluate(2)


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        (
            np.full((2, 2, 2), 256, np.int64),
            "expected pred_semantics of 0-17 in frame token, got 256",
        ),
        (
            np.full((2, 2, 2), -1, np.int64),
            "expected pred_semantics of 0-17 in frame token, got -1",
        ),
        (np.zeros((2, 2, 2)), r"expected pred_semantics \(X, Y, Z\) of whole numbers"),
        (np.zeros((2, 2), np.uint8), r"expected pred_semantics \(X, Y, Z\) of whole numbers"),
    ],
)
def test_a_prediction_that_is_no_grid_of_classes_is_an_error(tmp_path, grid, message):
    metric = OccupancyMetric(format_only=True, output_dir=str(tmp_path))
    with pytest.raises(ValueError, match=message):
        metric.process(None, [{"token": "token", "pred_semantics": grid}])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("token", ["../escaped", "a/b", "/absolute", "..", ""])
def test_a_token_that_names_no_file_of_the_folder_is_refused(tmp_path, token):
    metric = OccupancyMetric(format_only=True, output_dir=str(tmp_path / "out"))
    with pytest.raises(ValueError, match="expected a token of letters, .* as the name of a file"):
        metric.process(None, [{"token": token, "pred_semantics": np.zeros((2, 2, 2), np.uint8)}])
    assert not list(tmp_path.rglob("*.npz"))


def test_processes_with_shares_of_unlike_size_are_scored_together(monkeypatch):
    with np.load(RECORDS / "occ_basic.npz") as record:
        frames = list(_frames(record, "camera"))
        shares = []
        for share in (frames[:2], frames[2:], []):
            metric = OccupancyMetric()
            metric.process(None, [_sample(str(id(one[0])), *one) for one in share])
            shares.append(metric.results)
        monkeypatch.setattr(scene_metric, "collect_results", lambda *_, **__: shares)
        scores = OccupancyMetric().evaluate(3)
        assert scores["occ3d/mIoU"] == pytest.approx(float(record["camera_miou"]), abs=1e-9)


def test_a_mistake_that_the_main_process_finds_ends_the_others_too(monkeypatch):
    def receive(outcome):
        outcome[0] = ValueError("expected what the main process did not get")

    monkeypatch.setattr(scene_metric, "collect_results", lambda *_, **__: None)
    monkeypatch.setattr(scene_metric, "broadcast_object_list", receive)
    with pytest.raises(ValueError, match="expected what the main process did not get"):
        OccupancyMetric().evaluate(3)


@pytest.mark.parametrize("name", ["pred_semantics", "gt_semantics", "mask_camera"])
def test_a_sample_that_lacks_a_grid_is_an_error(name):
    grid = np.zeros((2, 2, 2), np.uint8)
    sample = _sample("token7", grid, grid, grid.astype(bool))
    del sample[name]
    with pytest.raises(ValueError, match=f"expected {name} of frame token7, got none"):
        OccupancyMetric().process(None, [sample])


def test_a_metric_of_settings_that_cannot_be_is_an_error():
    with pytest.raises(ValueError, match="expected mask camera, lidar or none, got radar"):
        OccupancyMetric(mask="radar")
    with pytest.raises(ValueError, match="expected an output_dir with format_only"):
        OccupancyMetric(format_only=True)
    with pytest.raises(ValueError, match="expected with_f_score=True with voxel_size, got False"):
        OccupancyMetric(voxel_size=1.6)
