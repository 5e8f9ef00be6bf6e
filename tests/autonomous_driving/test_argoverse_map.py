"""From an annotation file of Argoverse 2 to what a model gets, and back to a submission."""

from __future__ import annotations

import json

import numpy as np
import pytest
from mmengine.registry import DATASETS, METRICS, TRANSFORMS

import internimage.integrations.openmmlab.driving  # noqa: F401  (registers)
from internimage.integrations.openmmlab.driving.data.openlane_layout import CAMERAS
from internimage.integrations.openmmlab.driving.metrics.vector_map import elements_from_submission
from tests.autonomous_driving.argoverse_folder import LINES, NUM_FRAMES, SIZE, write_folder

PIPELINE = [
    {"type": "LoadDrivingImages"},
    {"type": "LoadVectorMap"},
    {"type": "PackDrivingInputs"},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("argoverse2")
    write_folder(root)
    return root


def read_set(root, ann_file="train_annotations.json", pipeline=PIPELINE, **options):
    return DATASETS.build(
        {
            "type": "ArgoverseMapDataset",
            "data_root": str(root),
            "ann_file": ann_file,
            "pipeline": pipeline,
            "serialize_data": False,  # which would collect garbage, slow in a process of tests
            **options,
        }
    )


@pytest.fixture
def changed(folder, tmp_path):
    """Return a function that changes the first frame and reads the set."""

    def change(edit, **options):
        content = json.loads((folder / "train_annotations.json").read_text())
        edit(content["segment"][0])
        path = tmp_path / "changed.json"
        path.write_text(json.dumps(content))
        return read_set(folder, str(path), **options)

    return change


def test_frames_come_in_order_with_their_cameras_and_lines(folder):
    frames = read_set(folder)
    assert len(frames) == NUM_FRAMES
    item = frames[1]
    sample = item["data_samples"]
    assert item["inputs"].shape == (1, len(CAMERAS), 3, *SIZE)
    assert sample.token == "315970000500000000" and sample.prev == "315970000000000000"
    assert sample.timestamp == 315970000500000  # microseconds
    assert sample.scene == "segment" and sample.cameras == list(CAMERAS)
    np.testing.assert_array_equal(sample.ego2global[0][:3, 3], [11, 20, 0])
    truth = sample.gt_polylines
    assert truth["labels"].tolist() == [0, 1, 2, 2]
    np.testing.assert_array_equal(truth["polylines"][1], np.array(LINES["divider"][0])[:, :2])


def test_points_before_the_first_camera_are_projected_with_its_extrinsic_from_ego(folder):
    matrix = read_set(folder)[0]["data_samples"].ego2img[0, 0]
    # 10 m ahead, 2 m to the left and 0.5 m below the camera at 1.5 m
    u, v, depth, one = matrix @ [10, 2, 1, 1]
    assert (u / depth, v / depth) == pytest.approx((32 - 50 * 2 / 10, 24 + 50 * 0.5 / 10))
    assert depth == pytest.approx(10) and one == 1


def test_a_split_without_annotation_can_be_read(changed):
    frames = changed(lambda frame: frame.pop("annotation"), test_mode=True)
    assert "gt_polylines" not in frames[0]["data_samples"]
    with pytest.raises(ValueError, match="none for 1 of them, the first 31597"):
        METRICS.build({"type": "VectorMapMetric"}).dataset_meta = frames.metainfo
    with pytest.raises(ValueError, match="expected an annotation to learn in frame 31597"):
        changed(lambda frame: frame.pop("annotation"))


def test_a_set_without_any_line_to_learn_is_refused(folder, tmp_path):
    content = json.loads((folder / "train_annotations.json").read_text())
    for frame in content["segment"]:
        frame["annotation"] = {}
    (tmp_path / "bare.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="expected polylines to learn, got none in all"):
        read_set(folder, str(tmp_path / "bare.json"))
    assert read_set(folder, str(tmp_path / "bare.json"), test_mode=True)


def test_a_frame_that_is_none_is_named(changed, folder, tmp_path):
    with pytest.raises(ValueError, match="got 'x' for timestamp, which is no whole number"):
        changed(lambda frame: frame.update(timestamp="x"))
    (tmp_path / "numbers.json").write_text('{"segment": [3]}')
    with pytest.raises(ValueError, match=r"each frame of .*numbers.json, got 3 for number 0"):
        read_set(folder, str(tmp_path / "numbers.json"))


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        ([1], r"polylines by class in the annotation of frame 31597\d+, got \[1\], in .*changed"),
        ({"divider": 5}, r"a list of polylines for divider in frame 31597\d+, got 5, in .*changed"),
        ({"divider": None}, "for divider in frame 31597.*, got None, in"),
        (
            {"divider": [5]},
            r"finite points \(x, y\[, z\]\) of every divider in frame 31597.* got 5",
        ),
        ({"divider": [[[1, 2], [3]]]}, r"every divider in frame 31597.* got \[\[1, 2\], \[3\]\]"),
        ({"divider": ["ab"]}, "every divider in frame 31597.* got ab"),
        ({"lane": []}, "expected ped_crossing, .* got lane"),
    ],
)
def test_an_annotation_of_another_kind_is_named_with_its_frame_and_file(
    changed, annotation, message
):
    with pytest.raises(ValueError, match=message):
        changed(lambda frame: frame.update(annotation=annotation))


def test_lines_of_one_point_are_counted_and_left_out(changed):
    with pytest.warns(UserWarning, match="2 polylines .* fewer than two points"):
        frames = changed(lambda frame: frame["annotation"]["divider"].extend([[[1, 2, 3]], []]))
    assert frames[0]["data_samples"].gt_polylines["labels"].tolist() == [0, 1, 2, 2]


def break_extrinsic(frame):
    frame["sensor"]["ring_side_left"]["extrinsic"][0][0] = 2.0


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda f: f["sensor"].pop("ring_rear_left"), "7 cameras .* got none of ring_rear_left"),
        (lambda f: f.pop("pose"), "expected 'pose' of frame 315970000000000000"),
        (break_extrinsic, "ring_side_left of frame 315970000000000000: expected a rigid pose"),
        (
            lambda f: f["annotation"]["divider"].append([[1, 2, 3], [4, 5]]),
            "points .* of every divider in frame 315970000000000000",
        ),
        (
            lambda f: f["annotation"]["boundary"].append([[1, 2, 3], [4, 5, float("nan")]]),
            "finite points .* of every boundary",
        ),
        (
            lambda f: f.update(annotation={"dividers": []}),
            "ped_crossing, divider, boundary in .* 315970000000000000, got dividers",
        ),
    ],
)
def test_a_frame_that_is_not_whole_is_named(changed, edit, message):
    with pytest.raises(ValueError, match=message):
        changed(edit)


def test_a_file_that_is_missing_or_none_is_named(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="got no file .*nowhere.json"):
        read_set(folder, "nowhere.json")
    broken = tmp_path / "broken.json"
    for text in ("{", "[]", '{"segment": 3}'):
        broken.write_text(text)
        with pytest.raises(ValueError, match="broken.json"):
            read_set(folder, str(broken))


def test_matrices_of_the_released_weights_are_stretched_by_the_padding(folder):
    plain = read_set(folder)[0]["data_samples"].ego2img
    stretch = {"type": "ScaleMatricesByPadding", "size_divisor": 40}  # 48 x 64 becomes 80 x 80
    pipeline = [PIPELINE[0], stretch, *PIPELINE[1:]]
    stretched = read_set(folder, pipeline=pipeline)[0]["data_samples"].ego2img
    np.testing.assert_allclose(stretched[..., 0, :], plain[..., 0, :] * 80 / 64)
    np.testing.assert_allclose(stretched[..., 1, :], plain[..., 1, :] * 80 / 48)
    np.testing.assert_array_equal(stretched[..., 2:, :], plain[..., 2:, :])


def test_the_original_pads_455_columns_to_480_and_nothing_else():
    frame = {"ego2img": np.ones((1, 4, 4)), "img": [np.zeros((256, 455, 3), np.uint8)]}
    stretch = TRANSFORMS.build({"type": "ScaleMatricesByPadding"})
    matrix = stretch.transform(frame)["ego2img"][0]
    np.testing.assert_allclose(matrix, np.diag([480 / 455, 1, 1, 1]) @ np.ones((4, 4)))


def samples_of(folder, **predictions):
    """Return samples whose prediction is the truth, as dictionaries."""
    samples = []
    for item in read_set(folder):
        sample = item["data_samples"]
        truth = sample.gt_polylines
        elements = {**truth, "scores": np.ones(len(truth["labels"])), **predictions}
        sample.set_field(elements, "pred_polylines")
        samples.append(sample.to_dict())
    return samples


def test_the_truth_as_prediction_is_perfect_through_reader_and_metric(folder):
    metric = METRICS.build({"type": "VectorMapMetric"})
    metric.process(None, samples_of(folder))
    scores = metric.evaluate(NUM_FRAMES)
    assert set(scores) == {
        f"vector_map/{name}"
        for name in ("mAP", "AP@0.5", "AP@1.0", "AP@1.5")
        + ("AP_ped_crossing", "AP_divider", "AP_boundary")
    }
    assert all(value == pytest.approx(1.0) for value in scores.values())


def test_a_submission_holds_every_frame_and_needs_no_truth(folder, tmp_path):
    metric = METRICS.build(
        {
            "type": "VectorMapMetric",
            "format_only": True,
            "output_dir": str(tmp_path / "results"),
            "submission": {"method": "InternImage"},
        }
    )
    samples = samples_of(folder)
    for sample in samples:
        del sample["gt_polylines"]
    metric.process(None, samples)
    assert metric.evaluate(NUM_FRAMES) == {}
    content = json.loads((tmp_path / "results" / "submission.json").read_text())
    assert content["meta"]["output_format"] == "vector"
    assert content["meta"]["method"] == "InternImage" and content["meta"]["use_camera"]
    assert list(content["results"]) == [sample["token"] for sample in samples]
    elements = elements_from_submission("1", content["results"][samples[1]["token"]])
    for line, expected in zip(
        elements["polylines"], samples[1]["pred_polylines"]["polylines"], strict=True
    ):
        np.testing.assert_array_equal(line, expected)


def test_predictions_that_are_missing_or_lack_scores_are_named(folder):
    metric = METRICS.build({"type": "VectorMapMetric"})
    samples = samples_of(folder)
    with pytest.raises(ValueError, match="expected pred_polylines of frame 1"):
        metric.process(None, [{"token": "1"}])
    metric.process(None, samples[:2])
    with pytest.raises(ValueError, match=f"for {NUM_FRAMES} frames, got 2"):
        metric.evaluate(NUM_FRAMES)
    samples[1]["pred_polylines"]["scores"][0] = np.nan
    with pytest.raises(ValueError, match=f"nan or inf in frame {samples[1]['token']}"):
        metric.process(None, samples[1:])
    del samples[0]["pred_polylines"]["scores"]
    with pytest.raises(ValueError, match=f"scores.* in frame {samples[0]['token']}"):
        metric.process(None, samples)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"format_only": True}, "output_dir"), ({"thresholds": (0.0, 1.0)}, "above 0 m")],
)
def test_settings_of_the_metric_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        METRICS.build({"type": "VectorMapMetric", **arguments})
