"""Small drives in the formats of three data sets."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tools.driving_scenes.cameras import GROUND, NOTHING, Camera, take
from tools.driving_scenes.classes import FREE
from tools.driving_scenes.nuscenes import write_nuscenes
from tools.driving_scenes.rigs import city_rig, ring_rig
from tools.driving_scenes.ring import record, write_argoverse, write_openlane
from tools.driving_scenes.road import Road
from tools.driving_scenes.voxels import FULL, SMALL, label_voxels, visible_voxels
from tools.driving_scenes.world import city_scene, lane_scene
from tools.make_driving_scenes import main


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def write_all(root: Path, *, seed: int) -> dict[str, bytes]:
    write_nuscenes(root / "nuscenes", num_frames=1, seed=seed, grid=SMALL)
    recordings = list(record(num_frames=1, seed=seed))
    write_openlane(root / "openlane", recordings)
    write_argoverse(root / "argoverse2", recordings)
    return contents(root)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_and_another_one_another_world(tmp_path: Path):
    first, second, other = (
        write_all(tmp_path / name, seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert first == second
    assert first.keys() != other.keys() or first != other
    images = [name for name in first if name.endswith(".jpg")]
    assert len(images) == 3 * 6 + 2 * 3 * 7
    assert sum(first[name] != other.get(name) for name in images) > 0.9 * len(images)


def test_a_command_makes_all_of_it_within_its_size(driving_scenes: Path):
    files = contents(driving_scenes)
    assert sum(map(len, files.values())) < 10e6
    assert sum(name.endswith(".jpg") for name in files) == 3 * 6 * 6 + 2 * 3 * 4 * 7
    names = {name.split("/")[0] for name in files}
    assert names == {"nuscenes", "openlane", "argoverse2"}
    for name in (
        "nuscenes/occ_infos_temporal_train.pkl",
        "nuscenes/can_bus/scene-0001_pose.json",
        "nuscenes/v1.0-trainval/sample_data.json",
        "openlane/data_dict_subset_A_val.pkl",
        "argoverse2/train_annotations.json",
    ):
        assert name in files


def test_references_between_the_tables_of_nuscenes_hold(driving_scenes: Path):
    folder = driving_scenes / "nuscenes" / "v1.0-trainval"
    tables = {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}
    tokens = {name: {row["token"] for row in rows} for name, rows in tables.items()}
    for name, rows in tables.items():
        assert len(tokens[name]) == len(rows) > 0 or name == "attribute"
        for row in rows:
            for key, value in row.items():
                if key in ("prev", "next") or key.startswith(("first_", "last_")):
                    kind = {"first_sample_token": "sample", "last_sample_token": "sample"}
                    kind |= dict.fromkeys(
                        ("first_annotation_token", "last_annotation_token"), "sample_annotation"
                    )
                    assert value == "" or value in tokens[kind.get(key, name)], (name, key)
                elif key.endswith("_token"):
                    assert value in tokens[key.removesuffix("_token")], (name, key)
    for row in tables["sample_data"]:
        path = driving_scenes / "nuscenes" / row["filename"]
        assert path.is_file() == (row["fileformat"] == "jpg")
        if row["fileformat"] == "jpg":
            with Image.open(path) as image:
                assert image.size == (row["width"], row["height"])


def test_lanes_of_a_frame_end_where_those_begin_that_they_lead_to(driving_scenes: Path):
    edges = 0
    for path in sorted((driving_scenes / "openlane").glob("*/*/info/*.json")):
        annotation = json.loads(path.read_text())["annotation"]
        lanes = [np.array(lane["points"]) for lane in annotation["lane_centerline"]]
        assert all(lane.shape == (201, 3) for lane in lanes)
        for i, j in np.argwhere(annotation["topology_lclc"]):
            assert np.linalg.norm(lanes[i][-1] - lanes[j][0]) < 0.5
            edges += 1
        shape = np.shape(annotation["topology_lcte"])
        assert shape == (len(lanes), len(annotation["traffic_element"]))
        assert np.sum(annotation["topology_lcte"]) >= 4
    assert edges > 50


def test_signals_change_while_the_car_comes_near(driving_scenes: Path):
    shown: dict[str, set[int]] = {}
    for path in sorted((driving_scenes / "openlane" / "train").glob("*/info/*.json")):
        elements = json.loads(path.read_text())["annotation"]["traffic_element"]
        lights = shown.setdefault(path.parts[-3], set())
        lights |= {e["attribute"] for e in elements if e["category"] == 1}
        assert all((e["attribute"] <= 3) == (e["category"] == 1) for e in elements)
    assert all(len(lights) > 1 for lights in shown.values())


@pytest.mark.parametrize("curvature", [1 / 50, -1 / 50])
def test_road_coordinates_and_the_plane_turn_into_each_other(curvature: float):
    road = Road(curvature, junction=20.0)
    path = np.stack(np.meshgrid(np.linspace(-40, 60, 11), np.linspace(-30, 30, 7)), -1)
    np.testing.assert_allclose(road.from_plane(road.to_plane(path)), path, atol=1e-9)
    ahead = road.to_plane((1e-6, 0.0)) / 1e-6
    np.testing.assert_allclose(ahead, [1, 0], atol=1e-5)  # along x at s = 0
    assert road.to_plane((0.0, 1.0))[1] > 0  # d is to the left
    assert np.sign(road.to_plane((10.0, 0.0))[1]) == np.sign(curvature)


@pytest.mark.parametrize("rig", [city_rig(), ring_rig()], ids=["city", "ring"])
def test_a_camera_sees_a_point_ahead_of_it_in_the_middle_and_one_to_the_left_on_the_left(
    rig: tuple[Camera, ...],
):
    scene = lane_scene("any", index=0, num_frames=1, seed=0)
    for camera in rig:
        shot = take(scene, 0, camera, paint=False)
        axis = shot.pose[:3, 2]
        left = np.cross([0, 0, 1], axis)
        middle, side, up = shot.project(
            shot.pose[:3, 3] + 10 * axis + np.array([np.zeros(3), left, [0, 0, 1]])
        )
        width, height = camera.size
        np.testing.assert_allclose(middle, [width / 2, height / 2, 10], atol=1e-9)
        assert side[0] < width / 2 and up[1] < height / 2
        assert shot.pixels.shape == (height, width, 3)


def test_depth_is_that_of_the_surface_which_owns_the_pixel():
    scene = city_scene("any", index=1, num_frames=1, seed=0)
    camera = city_rig()[0]
    shot = take(scene, 0, camera, paint=False)
    boxes = scene.boxes(0)
    rng = np.random.default_rng(0)
    for row, column in zip(rng.integers(96, size=200), rng.integers(160, size=200), strict=True):
        owner, depth = shot.owner[row, column], shot.depth[row, column]
        if owner == NOTHING:
            assert depth == np.inf
            continue
        pixel = np.array([column + 0.5, row + 0.5, 1])
        ray = shot.pose[:3, :3] @ np.linalg.inv(camera.intrinsic) @ pixel
        before, behind = (shot.pose[:3, 3] + (depth + step) * ray for step in (-1e-6, 1e-6))
        if owner == GROUND:
            assert abs(before[2]) < 1e-5
        else:
            assert boxes[owner].holds(behind) and not boxes[owner].holds(before)


def test_the_grid_of_the_benchmark_has_the_same_world_in_finer_voxels():
    scene = city_scene("any", index=0, num_frames=1, seed=0)
    shots = [take(scene, 0, camera, paint=False) for camera in city_rig()]
    labels, visible = label_voxels(scene, 0, FULL), visible_voxels(scene, 0, FULL, shots)
    assert labels.shape == visible.shape == (200, 200, 16) and labels.dtype == np.uint8
    assert (labels[:, :, : FULL.ground] == FREE).all() and not visible[:, :, : FULL.ground].any()
    # A voxel of 1.6 m has a voxel of 0.4 m at the same middle, or half a small one beside it.
    coarse = label_voxels(scene, 0, SMALL)
    fine = labels[60:140, 60:140].reshape(20, 4, 20, 4, 16)[:, 1:3, :, 1:3]
    near = [[2], [6], [10], [14]]  # layers at the heights 0, 1.6, 3.2 and 4.8 m
    same = (fine[..., np.array(near)[:, 0]] == coarse[:, None, :, None]).any((1, 3))
    assert same.mean() > 0.97


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seed", "-1"], "expected --seed >= 0, got -1"),
        (["--overwrite"], "of nuscenes, openlane, argoverse2 alone"),
        ([], "expected --out a new or empty folder"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_what_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
):
    (tmp_path / "own.txt").write_text("mine")
    assert main(["--out", str(tmp_path), *arguments]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1 and message in error[0]
    assert error[0].count("make_driving_scenes: ") == 1  # not the tool's and the function's
    assert contents(tmp_path) == {"own.txt": b"mine"}


def test_a_folder_that_fails_half_way_does_not_appear(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def write_half(root: Path, **settings: object) -> int:
        (root / "samples").mkdir(parents=True)
        raise OSError(28, "No space left on device", "x.jpg")

    monkeypatch.setattr("tools.make_driving_scenes.write_nuscenes", write_half)
    assert main(["--out", str(tmp_path / "scenes"), "--sets", "nuscenes"]) == 2
    assert "No space left" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
