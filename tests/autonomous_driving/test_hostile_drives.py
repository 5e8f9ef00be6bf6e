"""Drives of all three formats that are damaged: one clear error, or a count of what is skipped."""

from __future__ import annotations

import copy
import io
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import MODELS

from internimage.integrations.openmmlab.driving import OpenLaneMetric, VectorMapMetric
from internimage.integrations.openmmlab.driving.data.map_elements import MAP_CLASSES
from internimage.integrations.openmmlab.driving.data.occ3d import FREE, read_voxels
from internimage.integrations.openmmlab.driving.data.pickles import read_pickle, write_pickle
from tests.autonomous_driving.drives import annotations, read
from tools.driving_scenes.nuscenes import TRAIN
from tools.make_nuscenes_infos import write_infos
from tools.make_openlane_pickles import write_pickles

PARTS = ("nuscenes", "openlane", "argoverse2")
CAMERA = {"nuscenes": "CAM_BACK", "openlane": "ring_rear_left", "argoverse2": "ring_rear_left"}


def frames_of(part, content):
    """Returns the frames in a file of annotations, in its order."""
    if part == "nuscenes":
        return content["infos"]
    if part == "openlane":
        return list(content.values())
    return [frame for frames in content.values() for frame in frames]


@pytest.fixture
def damaged(driving_scenes, tmp_path):
    """Reads a part of the drives whose annotations a function has changed before."""

    def damage(part, change, **kwargs):
        source = annotations(driving_scenes, part)
        path = tmp_path / source.name
        if source.suffix == ".json":
            content = json.loads(source.read_text())
            change(content)
            path.write_text(json.dumps(content))
        else:
            content = read_pickle(source)
            change(content)
            write_pickle(path, content)
        return read(driving_scenes, part, ann_file=str(path), **kwargs)

    return damage


def camera_of(part, frame):
    return frame["cams" if part == "nuscenes" else "sensor"][CAMERA[part]]


def drop_camera(part, frame):
    del frame["cams" if part == "nuscenes" else "sensor"][CAMERA[part]]


def stretch_camera(part, frame):
    camera = camera_of(part, frame)
    if part == "nuscenes":
        camera["sensor2lidar_rotation"] = 1.1 * np.asarray(camera["sensor2lidar_rotation"])
    elif part == "openlane":
        camera["extrinsic"]["rotation"] = 1.1 * np.asarray(camera["extrinsic"]["rotation"])
    else:
        stretched = np.diag([1.1, 1.1, 1.1, 1.0]) @ np.array(camera["extrinsic"])
        camera["extrinsic"] = stretched.tolist()


def mirror_car(part, frame):
    mirror = np.diag([1.0, -1.0, 1.0])
    if part == "nuscenes":
        frame["ego2global_rotation"] = mirror
    elif part == "openlane":
        frame["pose"]["rotation"] = mirror
    else:
        frame["pose"]["ego2global_rotation"] = mirror.tolist()


def lose_place(part, frame):
    nowhere = [float("nan"), 0.0, 0.0]
    if part == "nuscenes":
        frame["ego2global_translation"] = nowhere
    elif part == "openlane":
        frame["pose"]["translation"] = np.array(nowhere)
    else:
        frame["pose"]["ego2global_translation"] = nowhere


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (drop_camera, "(?=.*got none)(?=.*{camera}).* frame "),
        (stretch_camera, "{camera} of frame .*expected a rigid pose"),
        (mirror_car, "frame .*expected a rigid pose"),
        (lose_place, "frame .*finite"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_frame_whose_cameras_or_poses_cannot_be_is_named(damaged, part, spoil, message):
    def change(content):
        spoil(part, frames_of(part, content)[2])

    with pytest.raises(ValueError, match=message.format(camera=CAMERA[part])):
        damaged(part, change)


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("nuscenes", "gone", "expected 'token' of frame number 4 of .*pkl, got none"),
        ("nuscenes", None, "frame number 4 of .*pkl, got None for token, which is no text"),
        ("nuscenes", "", "frame number 4 of .*pkl, got '' for token, which is empty"),
        ("openlane", None, r"each frame of .*pkl, got \('train', None, '\d+'\) for number 4"),
        ("openlane", "", r"each frame of .*pkl, got \('train', '', '\d+'\) for number 4"),
        ("argoverse2", "gone", "'timestamp' of frame number 0 of segment .* of .*json, got none"),
        ("argoverse2", None, "frame number 0 of segment .* got None for timestamp"),
        ("argoverse2", "", "frame number 0 of segment .* got '' for timestamp"),
    ],
)
def test_a_frame_without_its_name_is_refused_with_its_place_in_the_file(
    damaged, part, value, message
):
    def change(content):
        if part == "openlane":
            items = list(content.items())
            (split, _, time), frame = items[4]
            items[4] = (split, value, time), frame
            content.clear()
            content.update(items)
            return
        frames = content["infos"] if part == "nuscenes" else next(iter(content.values()))
        frame = frames[4 if part == "nuscenes" else 0]
        key = "token" if part == "nuscenes" else "timestamp"
        if value == "gone":
            del frame[key]
        else:
            frame[key] = value

    with pytest.raises(ValueError, match=message):
        damaged(part, change)


def lose_all_of_a_camera(part, frame):
    frame["cams" if part == "nuscenes" else "sensor"][CAMERA[part]] = None


def number_for_cameras(part, frame):
    frame["cams" if part == "nuscenes" else "sensor"] = 3


def ragged_turn(part, frame):
    turn = [[1.0, 0.0, 0.0], [0.0]]
    if part == "openlane":
        frame["pose"]["rotation"] = turn
    else:
        (frame if part == "nuscenes" else frame["pose"])["ego2global_rotation"] = turn


def huge_turn(part, frame):
    # Its products are inf - inf.
    pose = frame if part == "nuscenes" else frame["pose"]
    key = "rotation" if part == "openlane" else "ego2global_rotation"
    pose[key] = [[1e200, -1e200, 0.0], [1e200, 1e200, 0.0], [0.0, 0.0, 1.0]]


def ragged_intrinsic(part, frame):
    camera = camera_of(part, frame)
    if part == "openlane":
        camera["intrinsic"]["K"] = [[1.0, 2.0], [3.0]]
    else:
        camera["cam_intrinsic" if part == "nuscenes" else "intrinsic"] = [[1.0, 2.0], [3.0]]


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lose_all_of_a_camera, "expected .*{camera}.* frame "),
        (number_for_cameras, "expected (a whole|ring_front_center in) frame "),
        (ragged_turn, "frame .*expected numbers in rows of one length, got "),
        (huge_turn, "frame .*expected a rigid pose"),
        (ragged_intrinsic, "{camera} of frame .*expected numbers in rows of one length, got "),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
@pytest.mark.filterwarnings("error:.*:RuntimeWarning")
def test_what_is_of_another_kind_is_one_line_with_the_file_in_our_own_words(
    damaged, part, spoil, message
):
    def change(content):
        spoil(part, frames_of(part, content)[2])

    with pytest.raises(ValueError, match=message.format(camera=CAMERA[part])) as error:
        damaged(part, change)
    said = str(error.value)
    assert "train" in said and said.endswith((".pkl", ".json"))
    assert not any(word in said for word in ("object", "sequence", "inhomogeneous", "\n"))


@pytest.mark.parametrize("size", [5, "big", [900], [900, 0], [900.5, 1600], [900, None]])
def test_an_image_size_that_is_none_is_named_with_its_camera_and_file(damaged, size):
    def change(content):
        camera_of("nuscenes", content["infos"][2])["image_size"] = size

    with pytest.raises(ValueError, match=r"image_size of CAM_BACK of frame .*, in .*train\.pkl"):
        damaged("nuscenes", change)


def test_voxels_that_are_one_array_alone_are_named(tmp_path):
    path = tmp_path / "labels.npz"
    with path.open("wb") as file:
        np.save(file, np.zeros((2, 3, 4), np.uint8))
    with pytest.raises(ValueError, match=r"labels.npz, got none: one array alone, \(2, 3, 4\)"):
        read_voxels(path)


def test_voxels_whose_header_is_damaged_or_asks_for_too_much_are_named(tmp_path):
    path, buffer = tmp_path / "labels.npz", io.BytesIO()
    np.save(buffer, np.zeros(1, np.uint8))
    sizes = buffer.getvalue().replace(b"(1,), }" + 12 * b" ", b"(" + 13 * b"9" + b",), }")
    for array in (sizes, b"\x93NUMPY\x01\x00v\x00" + 118 * b"{"):
        with zipfile.ZipFile(path, "w") as archive:
            for name in ("semantics", "mask_camera", "mask_lidar"):
                archive.writestr(f"{name}.npy", array)
        with pytest.raises(ValueError, match="expected semantics, .* in .*labels.npz, got none: "):
            read_voxels(path)


@pytest.mark.parametrize("part", PARTS)
def test_a_calibration_for_half_the_size_of_the_image_is_an_error(damaged, part):
    def scaled(intrinsic):
        return (np.diag([0.5, 0.5, 1.0]) @ np.array(intrinsic)).tolist()

    def change(content):
        for frame in frames_of(part, content):
            camera = camera_of(part, frame)
            if part == "nuscenes":
                camera["cam_intrinsic"] = np.array(scaled(camera["cam_intrinsic"]))
                # As in the files of BEVFormer's tools, which do not say what size it is for.
                camera.pop("image_size", None)
            elif part == "openlane":
                camera["intrinsic"]["K"] = np.array(scaled(camera["intrinsic"]["K"]))
            else:
                camera["intrinsic"] = scaled(camera["intrinsic"])

    dataset = damaged(part, change)
    with pytest.raises(ValueError, match=f"principal point of {CAMERA[part]} .* in frame "):
        dataset[0]


@pytest.mark.parametrize("part", PARTS)
def test_the_order_of_frames_in_a_file_is_not_that_of_a_drive(damaged, driving_scenes, part):
    def change(content):
        if part == "nuscenes":
            content["infos"].reverse()
        elif part == "openlane":
            items = list(content.items())[::-1]
            content.clear()
            content.update(items)
        else:
            for frames in content.values():
                frames.reverse()

    def order(dataset):
        frames = [dataset.get_data_info(index) for index in range(len(dataset))]
        return sorted((f["scene"], f["timestamp"], f["prev"], f["token"]) for f in frames), frames

    expected, _ = order(read(driving_scenes, part, pipeline=[]))
    got, frames = order(damaged(part, change, pipeline=[]))
    assert got == expected
    for before, frame in zip(frames[:-1], frames[1:], strict=True):
        assert frame["prev"] == (before["token"] if before["scene"] == frame["scene"] else "")


@pytest.mark.parametrize("part", PARTS)
def test_a_frame_that_is_there_twice_is_an_error(damaged, part):
    def change(content):
        frame = copy.deepcopy(frames_of(part, content)[1])
        if part == "nuscenes":
            content["infos"].append(frame | {"token": "another"})
        elif part == "openlane":
            split, segment, time = list(content)[1]
            content[split, segment, str(int(time) + 1)] = frame  # within the same microsecond
        else:
            next(iter(content.values())).append(frame)

    with pytest.raises(ValueError, match="expected (one frame of|each token once)"):
        damaged(part, change)


@pytest.mark.parametrize("part", PARTS)
def test_a_set_without_any_frame_is_an_error(damaged, part):
    def change(content):
        if part == "argoverse2":
            for frames in content.values():
                frames.clear()
        else:
            (content["infos"] if part == "nuscenes" else content).clear()

    with pytest.raises(ValueError, match="expected at least one frame, got none in"):
        damaged(part, change)


@pytest.mark.parametrize("part", PARTS)
def test_an_image_that_is_missing_or_empty_is_named(damaged, driving_scenes, tmp_path, part):
    root = tmp_path / "root"
    shutil.copytree(driving_scenes / part, root)
    dataset = damaged(part, lambda content: None, data_root=str(root))
    frame = dataset.get_data_info(0)
    path = frame["img_paths"][frame["cameras"].index(CAMERA[part])]
    Path(path).write_bytes(b"")
    with pytest.raises(ValueError, match=f"expected an image of {CAMERA[part]} in frame"):
        dataset[0]
    Path(path).unlink()
    with pytest.raises(FileNotFoundError, match=f"image of {CAMERA[part]} in frame"):
        dataset[0]


def test_a_drive_without_frames_is_left_out(driving_scenes, tmp_path, damaged):
    with pytest.warns(UserWarning, match="1 of 3 scenes of .* have no frames and are left out"):
        assert len(damaged("argoverse2", lambda content: content.update(empty=[]))) == 8

    source, root = driving_scenes / "openlane", tmp_path / "openlane"
    for path in source.rglob("*.json"):
        (root / path.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, root / path.relative_to(source))
    listing = root / "data_dict_subset_A.json"
    content = json.loads(listing.read_text())
    content["train"]["empty"] = []
    listing.write_text(json.dumps(content))
    counts = write_pickles(root, ["train"])["train"]
    assert counts == {"frames": 8, "segments without frames, left out": 1}

    source, root = driving_scenes / "nuscenes", tmp_path / "nuscenes"
    for name in ("v1.0-trainval", "can_bus", "annotations.json"):
        copied = shutil.copytree if (source / name).is_dir() else shutil.copy
        root.mkdir(exist_ok=True)
        copied(source / name, root / name)
    table = root / "v1.0-trainval" / "sample.json"
    scenes = json.loads((root / "v1.0-trainval" / "scene.json").read_text())
    empty = next(scene["token"] for scene in scenes if scene["name"] == TRAIN[1])
    rows = [row for row in json.loads(table.read_text()) if row["scene_token"] != empty]
    table.write_text(json.dumps(rows))
    counts = write_infos(root, can_bus=root / "can_bus")["train"]
    assert counts["frames"] == 6
    assert counts["scenes without keyframes, left out"] == 1


def no_lanes(content):
    for frame in list(content.values())[:3]:
        annotation = frame["annotation"]
        annotation["lane_centerline"] = []
        annotation["topology_lclc"] = np.zeros((0, 0), np.int8)
        annotation["topology_lcte"] = np.zeros((0, len(annotation["traffic_element"])), np.int8)


def nothing_at_all(content):
    no_lanes(content)
    annotation = next(iter(content.values()))["annotation"]
    annotation["traffic_element"] = []
    annotation["topology_lcte"] = np.zeros((0, 0), np.int8)


def no_lines(content):
    next(iter(content.values()))[0]["annotation"] = {name: [] for name in MAP_CLASSES}


@pytest.mark.parametrize(
    ("part", "config", "change"),
    [
        ("nuscenes", "occupancy_prediction/bevformer_intern_occ_tiny.py", lambda content: None),
        ("openlane", "openlane-v2/internimage_tiny.py", no_lanes),
        ("openlane", "openlane-v2/internimage_tiny.py", nothing_at_all),
        ("argoverse2", "Online-HD-Map-Construction/vectormapnet_intern_tiny.py", no_lines),
    ],
    ids=["only free voxels", "no lanes", "no lanes and elements", "no lines"],
)
def test_a_frame_in_which_nothing_is_can_be_learned_from_and_predicted(
    damaged, part, config, change
):
    item = damaged(part, change, test_mode=False)[0]
    if part == "nuscenes":
        item["data_samples"].gt_semantics.fill_(FREE)
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile(f"autonomous_driving/configs/{config}").model)
    model.init_weights()
    batch = model.data_preprocessor(pseudo_collate([item]), training=True)
    loss, values = model.parse_losses(model(**batch, mode="loss"))
    loss.backward()
    assert all(np.isfinite(float(value)) for value in values.values()), values
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert any(gradient.any() for gradient in gradients)
    with torch.no_grad():
        (sample,) = model.eval()(**batch, mode="predict")
    assert [key for key in sample.keys() if key.startswith("pred_")]


def test_frames_in_which_nothing_is_are_read_and_scored(damaged):
    frames = [item["data_samples"].to_dict() for item in damaged("openlane", no_lanes)]
    assert [len(frame["gt_lanes"]["lanes"]) for frame in frames] == [0] * 3 + [13] * 5
    for frame in frames:
        truth = frame["gt_lanes"]
        scores = {
            "scores": np.ones(len(truth["lanes"])),
            "box_scores": np.ones(len(truth["boxes"])),
        }
        frame["pred_lanes"] = truth | scores
    metric = OpenLaneMetric()
    metric.process({}, frames)
    assert metric.evaluate(8)["openlane/OLS"] == pytest.approx(1)

    dataset = damaged("argoverse2", no_lines)
    frames = [item["data_samples"].to_dict() for item in dataset]
    assert len(frames[0]["gt_polylines"]["labels"]) == 0
    for frame in frames:
        truth = frame["gt_polylines"]
        frame["pred_polylines"] = truth | {"scores": np.ones(len(truth["labels"]))}
    metric = VectorMapMetric()
    metric.process({}, frames)
    assert metric.evaluate(8)["vector_map/mAP"] == pytest.approx(1)


def test_a_queue_of_training_stays_within_its_drive(driving_scenes):
    dataset = read(driving_scenes, "nuscenes", test_mode=False, queue_length=3)
    first = dataset[6]["data_samples"]  # of the second drive
    assert first.prev == "" and not first.has_prev.any()
    assert np.ptp(first.ego2global[:, 0, 3]) == 0
    later = dataset[9]["data_samples"]
    assert later.has_prev.tolist() == [False, True, True]
    steps = np.linalg.norm(np.diff(later.ego2global[:, :3, 3], axis=0), axis=1)
    assert ((2 < steps) & (steps < 7)).all()  # one or two frames at 5 to 6 m/s


def test_a_sample_without_lanes_is_named(driving_scenes):
    sample = read(driving_scenes, "openlane")[1]["data_samples"].to_dict()
    with pytest.raises(ValueError, match=f"expected pred_lanes of frame {sample['token']}"):
        OpenLaneMetric().process({}, [sample])
