"""From the tables of nuScenes and the voxels of Occ3D to what a model gets."""

from __future__ import annotations

import json
import shutil
import zipfile

import numpy as np
import pytest
from mmengine.evaluator import Evaluator
from mmengine.registry import DATASETS
from PIL import Image
from scipy.spatial.transform import Rotation

import internimage.integrations.openmmlab.driving  # noqa: F401  (registers)
from internimage.integrations.openmmlab.driving.data.pickles import read_pickle, write_pickle
from internimage.integrations.openmmlab.driving.metrics.occupancy_metric import OccupancyMetric
from tests.autonomous_driving.nuscenes_folder import (
    CAMERAS,
    NUM_FRAMES,
    SHAPE,
    SIZE,
    change_table,
    token_of,
    write_folder,
)
from tools.make_nuscenes_infos import main, write_infos

PIPELINE = [
    {"type": "LoadDrivingImages"},
    {"type": "LoadOccupancy", "shape": SHAPE},
    {"type": "PackDrivingInputs"},
]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The folder with its info files."""
    folder = write_folder(tmp_path_factory.mktemp("occ"))
    write_infos(folder, can_bus=folder.parent / "can_bus", version="v1.0-mini")
    return folder


@pytest.fixture
def own(tmp_path, written):
    """A copy of it to be changed."""
    shutil.copytree(written.parent, tmp_path / "own")
    return tmp_path / "own" / "occ3d-nus"


def read_set(folder, split="train", **options):
    return DATASETS.build(
        {
            **{"type": "Occ3DDataset", "data_root": str(folder), "pipeline": PIPELINE},
            **{"ann_file": f"occ_infos_temporal_{split}.pkl", **options},
        }
    )


def make(folder):
    can_bus = str(folder.parent / "can_bus")
    return main([str(folder), "--can-bus", can_bus, "--version", "v1.0-mini"])


def change_infos(folder, change):
    path = folder / "occ_infos_temporal_train.pkl"
    content = read_pickle(path)
    change(content["infos"])
    write_pickle(path, content)


def move(pose, point):
    """From a sensor's or vehicle's frame outwards."""
    w, x, y, z = pose["rotation"]
    return Rotation.from_quat([x, y, z, w]).apply(point) + pose["translation"]


def move_back(pose, point):
    w, x, y, z = pose["rotation"]
    turn = Rotation.from_quat([x, y, z, w]).inv()
    return turn.apply(np.subtract(point, pose["translation"]))


def test_a_point_of_the_ego_frame_falls_where_the_chain_of_tables_puts_it(written):
    tables = {
        name: {row["token"]: row for row in json.loads(path.read_text())}
        for name in ("ego_pose", "calibrated_sensor")
        for path in [written / "v1.0-mini" / f"{name}.json"]
    }
    sample = read_set(written)[5]["data_samples"]
    rng = np.random.default_rng(0)
    for number, camera in enumerate(CAMERAS):
        recording = f"{sample.token} {camera} True"
        calibration = tables["calibrated_sensor"][f"calibration {camera}"]
        for point in rng.uniform(-40, 40, (5, 3)):
            # Ego at the LiDAR's time -> world -> ego at the camera's time -> camera -> image.
            world = move(tables["ego_pose"][f"pose {sample.token} LIDAR_TOP True"], point)
            ego = move_back(tables["ego_pose"][f"pose {recording}"], world)
            expected = calibration["camera_intrinsic"] @ move_back(calibration, ego)
            found = sample.ego2img[0, number] @ [*point, 1]
            np.testing.assert_allclose(found, [*expected, 1], atol=1e-6)


def test_the_frames_of_a_split_are_its_scenes_in_the_order_of_time(written):
    train, val = read_set(written), read_set(written, "val", test_mode=True)
    assert [train[i]["data_samples"].token for i in range(len(train))] == [
        token_of(scene, frame)
        for scene in ("scene-0001", "scene-0002")
        for frame in range(NUM_FRAMES)
    ]
    assert [val[i]["data_samples"].prev for i in range(len(val))] == [
        "",
        *(token_of("scene-0003", frame) for frame in range(NUM_FRAMES - 1)),
    ]


def test_a_frame_holds_its_images_voxels_and_readings(written):
    item = read_set(written)[2]
    sample = item["data_samples"]
    assert item["inputs"].shape == (1, 6, 3, *SIZE)
    for number, camera in enumerate(CAMERAS):
        stored = Image.open(written / "samples" / camera / f"{sample.token}.png")
        blue_first = np.asarray(stored)[..., ::-1].transpose(2, 0, 1)
        np.testing.assert_array_equal(item["inputs"][0, number].numpy(), blue_first)
    with np.load(written / "gts" / "scene-0001" / sample.token / "labels.npz") as labels:
        np.testing.assert_array_equal(sample.gt_semantics.numpy(), labels["semantics"])
        np.testing.assert_array_equal(sample.mask_camera.numpy(), labels["mask_camera"] == 1)
        np.testing.assert_array_equal(sample.mask_lidar.numpy(), labels["mask_lidar"] == 1)
    pose = sample.ego2global[0]
    # Of all the messages' readings at 3 s, the last were sent at 2.000007 s.
    np.testing.assert_allclose(sample.can_bus[0, :3], pose[:3, 3], rtol=1e-6)
    np.testing.assert_array_equal(sample.can_bus[0, 7:16], np.diag([2, 2, 2]).ravel())
    yaw = np.arctan2(pose[1, 0], pose[0, 0]) % (2 * np.pi)
    np.testing.assert_allclose(sample.can_bus[0, 16:], [yaw, np.degrees(yaw)], rtol=1e-5)


def test_a_queue_is_drawn_from_the_frames_before_in_their_order(written):
    dataset = read_set(written, queue_length=3)
    seen = set()
    for _ in range(30):
        sample = dataset[3]["data_samples"]
        assert sample.ego2img.shape == (3, 6, 4, 4)
        assert sample.has_prev.tolist() == [False, True, True]
        poses = [dataset.get_data_info(index)["ego2global"] for index in range(4)]
        frames = [
            next(i for i, pose in enumerate(poses) if np.array_equal(pose, one))
            for one in sample.ego2global
        ]
        seen.add(tuple(frames))
    assert seen == {(0, 1, 3), (0, 2, 3), (1, 2, 3)}


def test_a_queue_does_not_reach_into_the_scene_before(written):
    dataset = read_set(written, queue_length=3)
    sample = dataset[NUM_FRAMES]["data_samples"]
    assert sample.token == token_of("scene-0002", 0)
    assert sample.has_prev.tolist() == [False, False, False]
    assert np.ptp(sample.ego2global, 0).max() == 0
    sample = dataset[NUM_FRAMES + 1]["data_samples"]
    assert sample.has_prev.tolist() == [False, False, True]


def test_at_test_time_a_frame_comes_alone(written):
    item = read_set(written, queue_length=3, test_mode=True)[3]
    assert item["inputs"].shape[0] == 1
    assert item["data_samples"].has_prev.tolist() == [False]


@pytest.mark.slow
def test_the_order_in_the_file_does_not_matter(own):
    change_infos(own, lambda infos: infos.reverse())
    tokens = [read_set(own)[i]["data_samples"].token for i in range(NUM_FRAMES)]
    assert tokens == [token_of("scene-0002", frame) for frame in range(NUM_FRAMES)]


def test_a_frame_that_is_left_out_links_those_around_it(own):
    change_infos(own, lambda infos: infos.pop(1))
    assert read_set(own)[1]["data_samples"].prev == token_of("scene-0001", 0)


def test_paths_of_another_computer_are_found_below_the_root(own):
    def change(infos):
        for info in infos:
            info["occ_gt_path"] = f"/far/away/{info['occ_gt_path']}"
            for camera in info["cams"].values():
                camera["data_path"] = f"./data/nuscenes/{camera['data_path']}"

    change_infos(own, change)
    assert read_set(own)[0]["data_samples"].gt_semantics.shape == SHAPE


def test_what_is_left_out_is_counted(own, capsys):
    path = own / "annotations.json"
    content = json.loads(path.read_text())
    del content["scene_infos"]["scene-0001"][token_of("scene-0001", 2)]
    path.write_text(json.dumps(content))
    with change_table(own, "sample") as rows:
        rows[:] = [row for row in rows if "scene-0002" not in row["token"]]
    (own.parent / "can_bus" / "scene-0001_pose.json").unlink()
    assert make(own) == 0
    said = capsys.readouterr().out
    assert "occ_infos_temporal_train.pkl: 3 frames" in said
    assert "train: 1 keyframes without voxels, left out" in said
    assert "train: 1 scenes without keyframes, left out" in said
    assert "train: 1 scenes without CAN readings, whose motions are 0" in said
    assert not read_set(own)[0]["data_samples"].can_bus[0, 7:16].any()
    shutil.rmtree(own / "gts" / "scene-0003")
    assert make(own) == 0
    assert "val: 4 keyframes whose file of voxels is not there" in capsys.readouterr().out


def _no_camera(folder):
    with change_table(folder, "sample_data") as rows:
        rows[:] = [row for row in rows if "scene-0002-frame1 CAM_BACK " not in row["token"]]


def _stretched(folder):
    with change_table(folder, "calibrated_sensor") as rows:
        rows[1]["rotation"] = [float("nan")] * 4


def _no_pose(folder):
    with change_table(folder, "ego_pose") as rows:
        del rows[0]


def _no_split(folder):
    path = folder / "annotations.json"
    path.write_text(json.dumps({"scene_infos": {}}))


def _unknown_scene(folder):
    with change_table(folder, "scene") as rows:
        del rows[1]


def _no_key(folder):
    with change_table(folder, "sample_data") as rows:
        del rows[3]["height"]


def _no_intrinsic(folder):
    with change_table(folder, "calibrated_sensor") as rows:
        rows[1]["camera_intrinsic"] = []


def _swapped_times(folder):
    with change_table(folder, "sample") as rows:
        rows[1]["timestamp"], rows[2]["timestamp"] = rows[2]["timestamp"], rows[1]["timestamp"]


def _cycle(folder):
    with change_table(folder, "sample") as rows:
        rows[0]["prev"] = rows[3]["token"]


def _annotated(**changes):
    def spoil(folder):
        path = folder / "annotations.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return spoil


def _changed(table, key, value):
    def spoil(folder):
        with change_table(folder, table) as rows:
            rows[2][key] = value

    return spoil


def _without(table, key):
    def spoil(folder):
        with change_table(folder, table) as rows:
            del rows[2][key]

    return spoil


def _no_keyframe(folder):
    path = folder / "annotations.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"scene_infos": {}}))


def _no_readings(folder):
    path = folder.parent / "can_bus" / "scene-0001_pose.json"
    path.write_text('[{"utime": 3}]')


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_no_camera, "expected a recording of CAM_BACK in sample scene-0002-frame1, got none"),
        (_stretched, "CAM_FRONT of sample scene-0001-frame0"),
        (_no_pose, "expected an ego pose of LIDAR_TOP in sample scene-0001-frame0"),
        (_no_split, "expected train_split in"),
        (_no_intrinsic, "CAM_FRONT of frame scene-0001-frame0: expected an intrinsic matrix"),
        (_swapped_times, "in the order of their times, got scene-0001-frame"),
        (_cycle, "in the order of their times, got scene-0001-frame0"),
        (_no_keyframe, "expected keyframes with voxels in"),
        (_unknown_scene, "got none named scene-0002"),
        (_no_key, "expected height in row 3 of"),
        (
            _without("calibrated_sensor", "camera_intrinsic"),
            "expected camera_intrinsic in row 2 of",
        ),
        (_without("sensor", "token"), "expected token in row 2 of"),
        (
            _changed("sample", "timestamp", "soon"),
            "expected a whole number as timestamp in row 2 of",
        ),
        (_changed("sample", "token", ["a"]), "expected a text as token in row 2 of"),
        (_changed("sample_data", "filename", None), "expected a text as filename in row 2 of"),
        (_changed("ego_pose", "rotation", "north"), "ego_pose.json"),
        (
            _changed("calibrated_sensor", "translation", [{}]),
            "expected a list of numbers as transl",
        ),
        (
            _changed("calibrated_sensor", "camera_intrinsic", [1]),
            "expected a matrix as camera_intr",
        ),
        (_annotated(train_split=None), "annotations.json, got None"),
        (_annotated(train_split=[["scene-0001"]]), "annotations.json, got [['scene-0001']]"),
        (_annotated(scene_infos=[1]), "expected scenes by name in"),
        (_annotated(scene_infos={"scene-0001": 3}), "expected keyframes by token of scene-0001"),
        (
            _annotated(scene_infos={"scene-0001": {"key": "a text"}}),
            "expected a gt_path of keyframe key of scene-0001 in",
        ),
        (lambda folder: (folder / "annotations.json").write_text("null"), "expected train_split"),
        (_no_readings, "expected messages with utime, accel, rotation_rate, vel"),
        (lambda folder: (folder / "v1.0-mini" / "sensor.json").unlink(), "sensor.json"),
        (lambda folder: (folder / "annotations.json").write_text("{"), "expected JSON in"),
        (lambda folder: shutil.rmtree(folder.parent / "can_bus"), "expected the folder of the CAN"),
    ],
)
def test_tables_that_do_not_fit_together_are_one_line(own, capsys, spoil, message):
    spoil(own)
    before = (own / "occ_infos_temporal_train.pkl").read_bytes()
    capsys.readouterr()
    assert make(own) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert (own / "occ_infos_temporal_train.pkl").read_bytes() == before


def _turn_over(info):
    info["ego2global_rotation"] = np.diag([1.0, 1.0, -1.0])


def _stretch(info):
    info["cams"]["CAM_BACK"]["sensor2lidar_rotation"] = 1.01 * np.eye(3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda info: info["cams"].pop("CAM_BACK"), "frame scene-0001-frame1, got none of CAM_"),
        (lambda info: info.pop("can_bus"), "expected 'can_bus' of frame scene-0001-frame1"),
        (lambda info: info.update(can_bus=[0] * 16), "expected 18 numbers of can_bus"),
        (lambda info: info.update(can_bus=[np.nan] * 18), "finite numbers of can_bus in frame sc"),
        (lambda info: info.update(cams=3), "expected a whole frame scene-0001-frame1, got"),
        (
            lambda info: info["cams"]["CAM_BACK"].update(data_path=None),
            "frame scene-0001-frame1, got None for data_path, which is no text",
        ),
        (
            lambda info: info.update(timestamp=1.9),
            "frame scene-0001-frame1, got 1.9 for timestamp, which is no whole number",
        ),
        (
            lambda info: info.update(timestamp=True),
            "frame scene-0001-frame1, got True for timestamp, which is no whole number",
        ),
        (
            lambda info: info.update(timestamp="abc"),
            "frame scene-0001-frame1, got 'abc' for timestamp, which is no whole number",
        ),
        (
            lambda info: info.update(ego2global_rotation=[1.2, 0, 0, 0]),
            "frame scene-0001-frame1: expected a quaternion .* of length 1",
        ),
        (_turn_over, "frame scene-0001-frame1"),
        (_stretch, "CAM_BACK of frame scene-0001-frame1"),
        (lambda info: info.update(timestamp=9e9), "in the order of their times, got scene-0001-fr"),
        (lambda info: info.update(timestamp=10**6), "expected one frame of token of scene-0001 a"),
        (
            lambda info: info.update(token="scene-0001-frame0"),
            "expected each token once, got scene-0001-frame0 again, in .*pkl",
        ),
    ],
)
def test_an_info_file_that_does_not_make_sense_is_an_error(own, change, message):
    change_infos(own, lambda infos: change(infos[1]))
    with pytest.raises(ValueError, match=message):
        read_set(own)


def test_a_frame_that_is_no_dictionary_is_named_by_its_number(own):
    def change(infos):
        infos[2] = 3

    change_infos(own, change)
    with pytest.raises(ValueError, match=r"each frame of .*_train.pkl, got 3 for number 2"):
        read_set(own)


def test_a_file_without_frames_is_an_error(own):
    change_infos(own, lambda infos: infos.clear())
    with pytest.raises(ValueError, match="expected at least one frame, got none in"):
        read_set(own)


def _labels(folder, **changes):
    path = folder / "gts" / "scene-0001" / token_of("scene-0001", 0) / "labels.npz"
    with np.load(path) as file:
        np.savez(path, **{**file, **changes})


def _smaller_image(folder):
    path = folder / "samples" / "CAM_BACK" / f"{token_of('scene-0001', 0)}.png"
    Image.fromarray(np.zeros((12, 20, 3), np.uint8)).save(path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: _labels(f, semantics=np.zeros((6, 8, 4), np.uint8)), "expected semantics of sh"),
        (lambda f: _labels(f, mask_lidar=np.zeros((8, 6, 3), np.uint8)), "expected mask_lidar of"),
        (
            lambda f: _labels(f, semantics=np.full(SHAPE, 99, np.uint8)),
            "expected semantics of 0-17",
        ),
        (
            lambda f: _labels(f, mask_camera=np.full(SHAPE, 2, np.uint8)),
            "expected mask_camera of 0",
        ),
        (
            lambda f: _labels(f, semantics=np.full(SHAPE, "17")),
            "semantics of whole numbers, got <U",
        ),
        (lambda f: _labels(f, semantics=np.full(SHAPE, 17.0)), "whole numbers, got float64"),
        (_smaller_image, "40x24 pixels, for which CAM_BACK is calibrated, got 20x12"),
    ],
)
def test_files_that_do_not_fit_their_frame_are_an_error(own, spoil, message):
    spoil(own)
    with pytest.raises(ValueError, match=message):
        read_set(own)[0]


@pytest.mark.parametrize("factor", [0.5, 2])
def test_without_its_size_a_calibration_has_its_principal_point_near_the_middle(own, factor):
    def change(infos):
        for info in infos:
            for camera in info["cams"].values():
                del camera["image_size"]

    change_infos(own, change)
    path = own / "samples" / "CAM_BACK" / f"{token_of('scene-0001', 0)}.png"
    height, width = (int(factor * side) for side in SIZE)
    Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(path)
    dataset = read_set(own)
    assert dataset[1]["inputs"].shape == (1, 6, 3, *SIZE)
    with pytest.raises(ValueError, match=r"principal point of CAM_BACK .* got \(19.0, 13.0\)"):
        dataset[0]


def test_a_frame_without_voxels_is_not_learned_and_still_predicted(own):
    change_infos(own, lambda infos: infos[1].pop("occ_gt_path"))
    with pytest.warns(UserWarning, match="1 of 8 frames of .* have no voxels to learn"):
        train = read_set(own)
    assert len(train) == 2 * NUM_FRAMES - 1
    assert train[1]["data_samples"].prev == token_of("scene-0001", 0)
    test = read_set(own, test_mode=True)
    assert len(test) == 2 * NUM_FRAMES
    assert "gt_semantics" not in test[1]["data_samples"]


def test_frames_without_voxels_are_not_scored_and_that_is_said_before_the_run(own, tmp_path):
    change_infos(own, lambda infos: infos[1].pop("occ_gt_path"))
    metainfo = read_set(own, test_mode=True).metainfo
    with pytest.raises(
        ValueError, match=f"none for 1 of them, the first {token_of('scene-0001', 1)}"
    ):
        Evaluator([OccupancyMetric()]).dataset_meta = metainfo
    Evaluator([OccupancyMetric(format_only=True, output_dir=str(tmp_path))]).dataset_meta = metainfo
    whole = read_set(own, "val", test_mode=True).metainfo
    Evaluator([OccupancyMetric()]).dataset_meta = whole


@pytest.mark.parametrize("content", [b"", b"PK no archive", "damaged", None])
def test_voxels_that_cannot_be_read_are_an_error(own, content):
    path = own / "gts" / "scene-0001" / token_of("scene-0001", 0) / "labels.npz"
    if content is None:
        np.savez(path, semantics=np.zeros(SHAPE, np.uint8))
    elif content == "damaged":
        grids = {name: np.zeros(SHAPE, np.uint8) for name in ("semantics", "mask_camera")}
        np.savez_compressed(path, **grids, mask_lidar=grids["mask_camera"])
        data = bytearray(path.read_bytes())
        with zipfile.ZipFile(path) as archive:
            member = archive.infolist()[0]
        start = member.header_offset + 30 + len(member.filename) + 20  # behind the extra field
        data[start : start + member.compress_size] = b"\xff" * member.compress_size
        path.write_bytes(data)
    else:
        path.write_bytes(content)
    with pytest.raises(ValueError, match="expected semantics, mask_camera and mask_lidar in"):
        read_set(own)[0]


@pytest.mark.parametrize("suffix", ["png", "npz"])
def test_a_missing_file_is_named(own, suffix):
    path = next(iter(sorted(own.rglob(f"{token_of('scene-0001', 0)}*.{suffix}"))), None)
    path = path or own / "gts" / "scene-0001" / token_of("scene-0001", 0) / "labels.npz"
    path.unlink()
    with pytest.raises(FileNotFoundError, match=str(path)):
        read_set(own)[0]
