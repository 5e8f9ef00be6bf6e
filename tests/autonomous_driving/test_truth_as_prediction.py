"""The truth of the drawn drives, read from their files and handed in as prediction, is perfect."""

from __future__ import annotations

import json

import numpy as np
import pytest

from internimage.integrations.openmmlab.driving import (
    OccupancyMetric,
    OpenLaneMetric,
    VectorMapMetric,
)
from tests.autonomous_driving.drives import annotations, read
from tools.score_driving_submission import main


def samples(scenes, part, **kwargs):
    return [item["data_samples"].to_dict() for item in read(scenes, part, **kwargs)]


def scores(metric, frames):
    metric.process({}, frames)
    return metric.evaluate(len(frames))


@pytest.mark.parametrize("mask", ["camera", "lidar", "none"])
def test_occupancy(driving_scenes, mask):
    frames = samples(driving_scenes, "nuscenes")
    for frame in frames:
        frame["pred_semantics"] = frame["gt_semantics"].clone()
    settings = {"voxel_size": 1.6, "origin": (-16.0, -16.0, -1.6), "threshold": 0.4}
    result = scores(OccupancyMetric(mask=mask, with_f_score=True, **settings), frames)
    assert len(frames) == 12
    assert len([name for name in result if "IoU_" in name]) >= 9
    for name, value in result.items():
        assert value == (100 if "IoU" in name else 1), name

    counted = frames[0][f"mask_{mask}"] if mask != "none" else frames[0]["gt_semantics"] < 18
    voxel = tuple(np.argwhere(counted.numpy())[0])
    frames[0]["pred_semantics"][voxel] = (frames[0]["pred_semantics"][voxel] + 1) % 18
    worse = scores(OccupancyMetric(mask=mask), frames)
    assert worse["occ3d/mIoU"] < 100


@pytest.mark.parametrize("split", ["train", "val"])
def test_lanes_elements_and_topology(driving_scenes, split):
    frames = samples(driving_scenes, "openlane", ann_file=f"data_dict_subset_A_{split}.pkl")
    for frame in frames:
        truth = frame["gt_lanes"]
        frame["pred_lanes"] = truth | {
            "scores": np.ones(len(truth["lanes"])),
            "box_scores": np.ones(len(truth["boxes"])),
        }
    result = scores(OpenLaneMetric(versions=("1.0", "1.0-as-released", "2.1")), frames)
    assert len(frames) == {"train": 8, "val": 4}[split]
    assert {"openlane/OLS", "openlane/OLS_2.1", "openlane/F"} <= set(result)
    for name, value in result.items():
        assert value == pytest.approx(1, abs=1e-9), name

    lanes = frames[0]["pred_lanes"]["lanes"]
    frames[0]["pred_lanes"] = {
        **frames[0]["pred_lanes"],
        "lanes": [lanes[0] + 5, *lanes[1:]],
        "attributes": frames[0]["pred_lanes"]["attributes"][::-1],
    }
    worse = scores(OpenLaneMetric(), frames)
    for name in ("OLS", "DET_l", "DET_t", "TOP_ll", "TOP_lt"):
        assert worse[f"openlane/{name}"] < 1, name


def test_the_tool_scores_a_submission_of_lanes_as_the_run_that_wrote_it(
    driving_scenes, tmp_path, capsys
):
    rng = np.random.default_rng(0)
    frames = samples(driving_scenes, "openlane")
    for frame in frames:
        truth = frame["gt_lanes"]
        lanes = [line + rng.normal(0, 0.8, (1, 3)) for line in truth["lanes"]]
        frame["pred_lanes"] = truth | {
            "lanes": lanes,
            "scores": rng.uniform(0, 1, len(lanes)),
            "box_scores": rng.uniform(0, 1, len(truth["boxes"])),
        }
    result = scores(OpenLaneMetric(output_dir=str(tmp_path)), frames)
    assert 0 < result["openlane/DET_l"] < 1 and 0 < result["openlane/TOP_ll"] < 1
    # The truth of train has 201 points a lane, what is scored 11.
    pickle = annotations(driving_scenes, "openlane")
    capsys.readouterr()  # what the metric logs
    assert main([str(tmp_path / "submission.pkl"), str(pickle)]) == 0
    found = json.loads(capsys.readouterr().out)
    for name, value in found.items():
        assert value == pytest.approx(result[f"openlane/{name}"], abs=1e-6), name


@pytest.mark.parametrize("split", ["train", "val"])
def test_vector_map(driving_scenes, split):
    frames = samples(driving_scenes, "argoverse2", ann_file=f"{split}_annotations.json")
    for frame in frames:
        truth = frame["gt_polylines"]
        frame["pred_polylines"] = truth | {"scores": np.ones(len(truth["labels"]))}
    result = scores(VectorMapMetric(), frames)
    assert len(frames) == {"train": 8, "val": 4}[split]
    assert "vector_map/mAP" in result
    for name, value in result.items():
        assert value == pytest.approx(1, abs=1e-9), name

    lines = frames[0]["pred_polylines"]["polylines"]
    frames[0]["pred_polylines"] = {
        **frames[0]["pred_polylines"],
        "polylines": [lines[0] + 2, *lines[1:]],
    }
    assert scores(VectorMapMetric(), frames)["vector_map/mAP"] < 1
