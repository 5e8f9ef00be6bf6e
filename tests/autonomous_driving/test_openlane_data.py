"""OpenLane-V2 from its files to what a model gets, and what is said of damaged ones."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from internimage.integrations.openmmlab.driving import OpenLaneDataset, OpenLaneMetric
from internimage.integrations.openmmlab.driving.bezier import bernstein
from internimage.integrations.openmmlab.driving.data.openlane_layout import CAMERAS
from internimage.integrations.openmmlab.driving.data.pickles import read_pickle, write_pickle
from tests.autonomous_driving.openlane_folder import (
    FRONT_SIZE,
    TIMES,
    frame_json,
    write_openlane_folder,
)
from tools.make_openlane_pickles import main, write_pickles

INPUT_SIZE = (32, 64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = write_openlane_folder(
        tmp_path_factory.mktemp("OpenLane-V2"), splits=("train", "val", "test")
    )
    counts = {"frames": 2, "segments without frames, left out": 0}
    assert write_pickles(root) == {"train": counts, "val": counts, "test": counts}
    return root


def read(root, split, **kwargs):
    pipeline = [
        {"type": "LoadDrivingImages"},
        {"type": "ResizeDrivingImages", "size": INPUT_SIZE},
        {"type": "LoadOpenLane"},
        {"type": "PackDrivingInputs", "meta_keys": ("identifier",)},
    ]
    return OpenLaneDataset(
        data_root=str(root),
        ann_file=f"data_dict_subset_A_{split}.pkl",
        pipeline=pipeline,
        test_mode=split == "test",
        **kwargs,
    )


def test_pickles_hold_the_frames_by_split_segment_and_time(folder):
    train = read_pickle(folder / "data_dict_subset_A_train.pkl")
    val = read_pickle(folder / "data_dict_subset_A_val.pkl")
    assert set(train) == {("train", "00000", time) for time in TIMES}
    truth = frame_json("train", "00000", TIMES[0])["annotation"]["lane_centerline"][1]["points"]
    lanes = train["train", "00000", TIMES[0]]["annotation"]["lane_centerline"]
    np.testing.assert_array_equal(lanes[1]["points"], np.float32(truth))
    scored = val["val", "00001", TIMES[0]]["annotation"]["lane_centerline"]
    np.testing.assert_array_equal(scored[1]["points"], np.float32(truth)[::20])
    frame = train["train", "00000", TIMES[0]]
    assert frame["annotation"]["topology_lcte"].dtype == np.int8
    assert frame["sensor"][CAMERAS[3]]["extrinsic"]["rotation"].dtype == np.float64


def test_a_point_keeps_its_place_in_the_resized_front_image(folder):
    sample = read(folder, "train")[0]["data_samples"]
    frame = frame_json("train", "00000", TIMES[0])
    front = frame["sensor"][CAMERAS[0]]
    point = np.array([12.0, 1.0, 2.0])
    rotation, offset = (np.array(front["extrinsic"][key]) for key in ("rotation", "translation"))
    u, v, depth = np.array(front["intrinsic"]["K"]) @ (rotation.T @ (point - offset))
    expected = np.array([u / depth, v / depth]) * np.array(INPUT_SIZE)[::-1] / FRONT_SIZE
    got = sample.metainfo["ego2img"][-1, 0] @ [*point, 1]
    np.testing.assert_allclose(got[:2] / got[2], expected, rtol=1e-9)
    np.testing.assert_allclose(
        sample.metainfo["scale_factors"][0], np.array(INPUT_SIZE)[::-1] / FRONT_SIZE
    )


def test_a_sample_holds_lanes_their_curves_elements_and_topology(folder):
    item = read(folder, "train")[1]
    truth = frame_json("train", "00000", TIMES[1])["annotation"]
    lanes = item["data_samples"].gt_lanes
    assert item["inputs"].shape == (1, 7, 3, *INPUT_SIZE)
    curves = bernstein(201) @ lanes["control_points"].reshape(3, 5, 3)
    expected = [lane["points"] for lane in truth["lane_centerline"]]
    np.testing.assert_allclose(curves, expected, atol=1e-4)
    np.testing.assert_array_equal(lanes["boxes"], [[3, 4, 9, 16], [18, 5, 27, 11]])
    np.testing.assert_array_equal(lanes["attributes"], [1, 4])
    np.testing.assert_array_equal(lanes["topology_lclc"], truth["topology_lclc"])
    np.testing.assert_array_equal(lanes["topology_lcte"], truth["topology_lcte"])
    assert item["data_samples"].metainfo["identifier"] == ("train", "00000", TIMES[1])
    # Colour by colour: the front camera comes first, and red, 0-255, is the last channel.
    reds = item["inputs"][0, :, 2].float().mean((1, 2))
    np.testing.assert_allclose(reds, [30 * index for index in range(7)], atol=3)


def test_the_test_split_has_images_but_nothing_to_learn(folder):
    assert "gt_lanes" not in read(folder, "test")[0]["data_samples"]
    with pytest.raises(ValueError, match="expected an annotation to learn in frame 00002-"):
        OpenLaneDataset(data_root=str(folder), ann_file="data_dict_subset_A_test.pkl", pipeline=[])


def without_a_camera(frame):
    del frame["sensor"]["ring_rear_left"]


def with_half_a_relation(frame):
    frame["annotation"]["topology_lcte"] = np.full((3, 2), 0.5)


def without_a_place(frame):
    del frame["sensor"]["ring_side_left"]["extrinsic"]["translation"]


def with_a_stretched_pose(frame):
    frame["pose"]["rotation"] = np.diag([1.0, 1.0, 1.2])


def with_a_wrong_matrix(frame):
    frame["annotation"]["topology_lclc"] = np.zeros((3, 4), np.int8)


def with_a_ragged_lane(frame):
    frame["annotation"]["lane_centerline"][1]["points"] = [[0, 1, 2], [3, 4]]


def with_a_ragged_matrix(frame):
    frame["annotation"]["topology_lclc"] = [[0, 1, 0], [0, 1], [0, 0, 0]]


def with_a_number_for_a_lane(frame):
    frame["annotation"]["lane_centerline"][1] = 7


def with_a_number_for_all_lanes(frame):
    frame["annotation"]["lane_centerline"] = 7


def with_a_number_for_a_path(frame):
    frame["sensor"]["ring_rear_left"]["image_path"] = 7


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (with_a_ragged_lane, "rows of one length in lane_centerline 11 of frame 00000-"),
        (with_a_ragged_matrix, "rows of one length in topology_lclc of frame 00000-"),
        (with_a_number_for_a_lane, "for lane_centerline number 1 of frame 00000-.*, got 7"),
        (with_a_number_for_all_lanes, "a list for lane_centerline in frame 00000-.*, got 7"),
        (with_a_number_for_a_path, "a whole frame 00000-.*, got 7 for image_path, which is no"),
        (without_a_camera, "expected ring_rear_left in frame 00000-.*, got none"),
        (with_half_a_relation, "topology_lcte of 0 and 1 in frame 00000-.* got 0.5"),
        (without_a_place, "expected translation in ring_side_left of frame 00000-"),
        (with_a_stretched_pose, "pose of frame .* expected a rigid pose"),
        (with_a_wrong_matrix, r"topology_lclc of shape \(3, 3\) in frame .* got \(3, 4\)"),
    ],
)
def test_a_frame_that_is_not_whole_is_named(folder, tmp_path, spoil, message):
    frames = read_pickle(folder / "data_dict_subset_A_train.pkl")
    spoil(next(iter(frames.values())))
    write_pickle(tmp_path / "data_dict_subset_A_train.pkl", frames)
    with pytest.raises(ValueError, match=message):
        read(tmp_path, "train")


def test_a_set_without_anything_to_learn_is_refused(folder, tmp_path):
    frames = read_pickle(folder / "data_dict_subset_A_train.pkl")
    for frame in frames.values():
        for part in frame["annotation"]:
            frame["annotation"][part] = []
    write_pickle(tmp_path / "data_dict_subset_A_train.pkl", frames)
    with pytest.raises(ValueError, match="expected lanes or .*, got none in all 2 frames of"):
        read(tmp_path, "train")


def test_what_lies_where_no_camera_sees_it_is_counted(folder, tmp_path):
    frames = read_pickle(folder / "data_dict_subset_A_train.pkl")
    for frame in frames.values():
        lane = frame["annotation"]["lane_centerline"][0]
        lane["points"] = np.asarray(lane["points"]) + [1e6, 0, 0]
    element = frame["annotation"]["traffic_element"][0]
    element["points"] = np.asarray(element["points"]) + 5000
    write_pickle(tmp_path / "data_dict_subset_A_train.pkl", frames)
    with (
        pytest.warns(UserWarning, match="has 2 lanes that come nowhere within 200 m"),
        pytest.warns(UserWarning, match="has 1 boxes of traffic elements outside of the image"),
    ):
        read(tmp_path, "train")


def test_frames_without_truth_are_not_scored_and_that_is_said_before_the_run(folder, tmp_path):
    metainfo = read(folder, "test").metainfo
    with pytest.raises(ValueError, match="OpenLaneMetric: .*, got none for 2 of them, the first"):
        OpenLaneMetric().dataset_meta = metainfo
    OpenLaneMetric(format_only=True, output_dir=str(tmp_path)).dataset_meta = metainfo


def test_a_lane_of_one_point_ends_the_tool_with_one_line(tmp_path, capsys):
    root = write_openlane_folder(tmp_path, splits=("val",))
    path = root / "val" / "00000" / "info" / f"{TIMES[0]}.json"
    frame = json.loads(path.read_text())
    frame["annotation"]["lane_centerline"][2]["points"] = [[1, 2, 3]]
    path.write_text(json.dumps(frame))
    assert main([str(root)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "expected at least two points (x, y, z) in lane_centerline 12 of " in error
    assert str(path) in error
    assert not (root / "data_dict_subset_A_val.pkl").exists()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda frame: frame["annotation"].update(lane_centerline=None), "a list for lane_center"),
        (lambda frame: frame["annotation"].update(topology_lclc=[[0, 1], [0]]), "rows of one leng"),
        (
            lambda frame: frame["pose"].update(rotation="a"),
            "numbers in rows of one length, got 'a'",
        ),
        (lambda frame: frame["pose"].update(rotation=[[1, 0], [0]]), "length, got [[1, 0], [0]]"),
        (lambda frame: frame["sensor"].update(more=3), "expected extrinsic in more of "),
    ],
)
def test_a_file_whose_frame_is_of_another_kind_is_named_by_the_tool(
    tmp_path, capsys, spoil, message
):
    root = write_openlane_folder(tmp_path, splits=("val",))
    path = root / "val" / "00000" / "info" / f"{TIMES[0]}.json"
    frame = json.loads(path.read_text())
    spoil(frame)
    path.write_text(json.dumps(frame))
    assert main([str(root)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line and str(path) in line


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ([], "expected frames by split in .*A.json, got "),
        ({"train": 1}, "names of files by segment for train, got 1"),
        ({"train": {"0": 1}}, "names of files by segment for train, got "),
        ({"train": {"0": [1]}}, "names of files by segment for train, got "),
    ],
)
def test_a_list_of_another_kind_is_an_error(tmp_path, listed, message):
    (tmp_path / "data_dict_subset_A.json").write_text(json.dumps(listed))
    with pytest.raises(ValueError, match=message):
        write_pickles(tmp_path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("name", "expected TIME.json, nanoseconds, to name each frame, got .*first.json"),
        ("twice", f"expected each frame once, got .*{TIMES[0]}.json again"),
        ("same microsecond", "expected one frame of 00001 a time, got 00001-"),
        ("empty", "expected at least one frame of val, got none"),
        ("pose", f"pose of frame .*{TIMES[0]}.json"),
        ("image", f"{TIMES[0]}.json, got 5 for image_path, which is no text"),
        ("missing", f"got no file .*{TIMES[0]}.json"),
    ],
)
def test_a_set_that_training_would_refuse_is_refused_before_any_pickle_is_written(
    tmp_path, damage, message
):
    root = write_openlane_folder(tmp_path)
    listing = root / "data_dict_subset_A.json"
    listed = json.loads(listing.read_text())
    path = root / "val" / "00001" / "info" / f"{TIMES[0]}.json"
    frame = json.loads(path.read_text())
    names = listed["val"]["00001"]
    if damage in ("name", "same microsecond"):
        names[0] = "first.json" if damage == "name" else f"{int(TIMES[1]) + 1}.json"
        path.rename(path.with_name(names[0]))
    elif damage == "twice":
        names.append(names[0])
    elif damage == "empty":
        names.clear()
    elif damage == "missing":
        path.unlink()
    else:
        if damage == "pose":
            frame["pose"]["rotation"][0][0] = 2
        else:
            frame["sensor"][CAMERAS[3]]["image_path"] = 5
        path.write_text(json.dumps(frame))
    listing.write_text(json.dumps(listed))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        write_pickles(root)
    assert not list(root.glob("*.pkl"))


def test_a_train_split_with_nothing_to_learn_is_refused(tmp_path):
    root = write_openlane_folder(tmp_path, splits=("train",))
    for path in root.glob("train/*/info/*.json"):
        frame = json.loads(path.read_text())
        for part in frame["annotation"]:
            frame["annotation"][part] = []
        path.write_text(json.dumps(frame))
    with pytest.raises(ValueError, match="lanes or traffic elements to learn, got none in all 2"):
        write_pickles(root)


def test_where_one_pickle_finds_no_place_all_stay_as_they_were(folder, tmp_path, capsys):
    root = tmp_path / "set"
    shutil.copytree(folder, root)
    (root / "data_dict_subset_A_train.pkl").write_bytes(b"of before")
    for place in ("val", "test"):
        (root / f"data_dict_subset_A_{place}.pkl").unlink()
    (root / "data_dict_subset_A_val.pkl").mkdir()  # no file can take this name
    assert main([str(root), "--splits", "train", "val"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "data_dict_subset_A_val.pkl" in line
    assert (root / "data_dict_subset_A_train.pkl").read_bytes() == b"of before"
    assert not list(root.glob(".*"))


def test_segments_without_frames_are_counted(tmp_path, capsys):
    root = write_openlane_folder(tmp_path, splits=("train",))
    listing = root / "data_dict_subset_A.json"
    listed = json.loads(listing.read_text())
    listed["train"].update(a=[], b=[])
    listing.write_text(json.dumps(listed))
    assert main([str(root)]) == 0
    assert "train.pkl: 2 frames, 2 segments without frames, left out" in capsys.readouterr().out


def test_a_folder_without_its_list_and_a_split_that_is_not_in_it_are_named(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="expected the list of the frames"):
        write_pickles(tmp_path)
    with pytest.raises(ValueError, match=r"expected splits out of .*got \['tests'\]"):
        write_pickles(folder, ["tests"])


def test_a_frame_without_any_lane_stays_in_the_set(tmp_path):
    root = write_openlane_folder(tmp_path, splits=("train",))
    path = root / "train" / "00000" / "info" / f"{TIMES[0]}.json"
    frame = json.loads(path.read_text())
    frame["annotation"].update(lane_centerline=[], topology_lclc=[], topology_lcte=[])
    path.write_text(json.dumps(frame))
    assert main([str(root)]) == 0
    lanes = read(root, "train")[0]["data_samples"].gt_lanes
    assert lanes["lanes"] == []
    shapes = [lanes[key].shape for key in ("control_points", "topology_lclc", "topology_lcte")]
    assert shapes == [(0, 15), (0, 0), (0, 2)]


def test_another_pickle_is_named_with_the_tool_that_makes_the_right_one(tmp_path):
    write_pickle(tmp_path / "data_dict_subset_A_train.pkl", [])
    with pytest.raises(ValueError, match="got another one, .*tools/make_openlane_pickles.py"):
        read(tmp_path, "train")


def test_lanes_whose_points_are_all_the_same_are_counted(folder, tmp_path):
    frames = read_pickle(folder / "data_dict_subset_A_train.pkl")
    lane = next(iter(frames.values()))["annotation"]["lane_centerline"][0]
    lane["points"] = np.repeat(np.asarray(lane["points"])[:1], 201, 0)
    write_pickle(tmp_path / "data_dict_subset_A_train.pkl", frames)
    with pytest.warns(UserWarning, match="has 1 lanes whose points are all the same"):
        read(tmp_path, "train")


@pytest.mark.parametrize("name", [("train", "00000", "first"), ("train", None, "12"), ("train",)])
def test_a_key_that_names_no_frame_is_an_error_with_its_place(folder, tmp_path, name):
    path = tmp_path / "data_dict_subset_A_train.pkl"
    frames = read_pickle(folder / path.name)
    write_pickle(path, {**frames, name: next(iter(frames.values()))})
    with pytest.raises(ValueError, match="each frame of .*train.pkl, got .* for number 2; tools/"):
        read(tmp_path, "train")
