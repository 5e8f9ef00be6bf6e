"""Writes drives as nuScenes with Occ3D's voxels: tables, images, CAN messages, labels.

    can_bus/SCENE_pose.json
    annotations.json
    v1.0-trainval/*.json
    samples/CAMERA/*.jpg
    gts/SCENE/TOKEN/labels.npz
    occ_infos_temporal_train.pkl  occ_infos_temporal_val.pkl

The LiDAR has its key frames in the tables, since poses refer to it, and no files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tools.driving_scenes.cameras import Shot, take
from tools.driving_scenes.classes import BARRIER, BUS, CAR, PEDESTRIAN, TRUCK
from tools.driving_scenes.files import to_quaternion, write_arrays, write_plain_json
from tools.driving_scenes.rigs import city_rig
from tools.driving_scenes.road import Points
from tools.driving_scenes.voxels import Grid, label_voxels, visible_voxels
from tools.driving_scenes.world import Box, Scene, city_scene, pose, token
from tools.make_nuscenes_infos import write_infos

TRAIN, VAL = ("scene-0001", "scene-0002"), ("scene-0003",)
"""Names that are in the same split of nuScenes itself."""
VERSION = "v1.0-trainval"
CATEGORIES = {
    BARRIER: "movable_object.barrier",
    BUS: "vehicle.bus.rigid",
    CAR: "vehicle.car",
    PEDESTRIAN: "human.pedestrian.adult",
    TRUCK: "vehicle.truck",
}
"""Things that nuScenes draws boxes around."""
LIDAR = "LIDAR_TOP"
# As on nuScenes' cars, so that a reader who takes the LiDAR's frame for the ego's is found out.
LIDAR_MOUNTING = pose(-np.pi / 2, (0.94, 0.0, 1.84))  # its x axis points to the car's right
LIDAR_SHARE = 0.6  # of the voxels that it has an opinion on
CAN_RATE = 50  # messages a second

Tables = dict[str, list[dict[str, Any]]]


def write_nuscenes(root: Path, *, num_frames: int, seed: int, grid: Grid) -> int:
    """Writes the drives of both halves.

    Args:
        root: The folder of the data set.
        num_frames: Key frames a drive.
        seed: Another seed is another world.
        grid: The voxels of the labels.

    Returns:
        How many images there are.
    """
    tables = _common_tables()
    infos: dict[str, Any] = {}
    count = 0
    for index, name in enumerate((*TRAIN, *VAL)):
        scene = city_scene(name, index=index, num_frames=num_frames, seed=seed)
        infos[name] = {}
        _add_scene(tables, scene)
        for frame in range(num_frames):
            shots = [take(scene, frame, camera, paint=False) for camera in city_rig()]
            for shot in shots:
                shot.save(root / _image_path(scene, frame, shot.camera.name))
            _add_frame(tables, scene, frame, shots)
            infos[name][_sample(scene, frame)] = _write_labels(
                root, scene, frame, grid, shots, seed=seed
            )
            count += len(shots)
        write_plain_json(root / "can_bus" / f"{name}_pose.json", _can_messages(scene))
    _link_annotations(tables)
    for name, rows in tables.items():
        write_plain_json(root / VERSION / f"{name}.json", rows)
    # nuScenes has it beside the tables; nothing here reads it.
    (root / "maps").mkdir()
    splits = {"train_split": list(TRAIN), "val_split": list(VAL)}
    write_plain_json(root / "annotations.json", {**splits, "scene_infos": infos})
    # By the very tool that users call on the real tables, which is tested with it.
    write_infos(root, can_bus=root / "can_bus", version=VERSION)
    return count


def _sample(scene: Scene, frame: int) -> str:
    # Outside of the scene "", which is how nuScenes says that there is no such frame.
    return token("sample", scene.name, frame) if 0 <= frame < scene.num_frames else ""


def _image_path(scene: Scene, frame: int, sensor: str) -> str:
    name = f"{scene.name}__{sensor}__{scene.timestamp(scene.time(frame))}"
    return f"samples/{sensor}/{name}" + (".pcd.bin" if sensor == LIDAR else ".jpg")


def _placed(matrix: Points) -> dict[str, Any]:
    return {
        "rotation": to_quaternion(matrix),
        "translation": matrix[:3, 3].tolist(),
    }


def _common_tables() -> Tables:
    names = ("attribute", "calibrated_sensor", "category", "ego_pose", "instance", "log", "map")
    more = ("sample", "sample_annotation", "sample_data", "scene", "sensor", "visibility")
    tables: Tables = {name: [] for name in (*names, *more)}
    for name in CATEGORIES.values():
        tables["category"].append({"token": token(name), "name": name, "description": ""})
    for camera in city_rig():
        row = {"channel": camera.name, "modality": "camera"}
        tables["sensor"].append({"token": token("sensor", camera.name), **row})
    tables["sensor"].append(
        {"token": token("sensor", LIDAR), "channel": LIDAR, "modality": "lidar"}
    )
    # Tokens of visibility are numbers in nuScenes.
    for level, text in enumerate(("v0-40", "v40-60", "v60-80", "v80-100"), start=1):
        tables["visibility"].append({"token": str(level), "level": text, "description": ""})
    return tables


def _add_scene(tables: Tables, scene: Scene) -> None:
    log, name = token("log", scene.name), scene.name
    place = {"vehicle": "", "date_captured": "2018-08-01", "location": "nowhere"}
    tables["log"].append({"token": log, "logfile": name, **place})
    tables["map"].append(
        {
            "token": token("map", name),
            "log_tokens": [log],
            "category": "semantic_prior",
            "filename": "",
        }
    )
    tables["scene"].append(
        {
            "token": token("scene", name),
            "log_token": log,
            "nbr_samples": scene.num_frames,
            "first_sample_token": _sample(scene, 0),
            "last_sample_token": _sample(scene, scene.num_frames - 1),
            "name": name,
            "description": "a made-up drive",
        }
    )
    sensors = [(c.name, c.mounting, c.intrinsic.tolist()) for c in city_rig()]
    for sensor, mounting, intrinsic in [*sensors, (LIDAR, LIDAR_MOUNTING, [])]:
        tables["calibrated_sensor"].append(
            {
                "token": token("calibrated", name, sensor),
                "sensor_token": token("sensor", sensor),
                **_placed(mounting),
                "camera_intrinsic": intrinsic,
            }
        )
    for thing in scene.things:
        if thing.label in CATEGORIES:
            tables["instance"].append(
                {
                    "token": token("instance", name, thing.name),
                    "category_token": token(CATEGORIES[thing.label]),
                    "nbr_annotations": scene.num_frames,
                    "first_annotation_token": token("annotation", name, thing.name, 0),
                    "last_annotation_token": token(
                        "annotation", name, thing.name, scene.num_frames - 1
                    ),
                }
            )


def _add_frame(tables: Tables, scene: Scene, frame: int, shots: list[Shot]) -> None:
    time = scene.time(frame)
    tables["sample"].append(
        {
            "token": _sample(scene, frame),
            "timestamp": scene.timestamp(time),
            "prev": _sample(scene, frame - 1),
            "next": _sample(scene, frame + 1),
            "scene_token": token("scene", scene.name),
        }
    )
    sensors = [(s.camera.name, s.camera.delay, s.camera.size, "jpg") for s in shots]
    for sensor, delay, (width, height), form in [*sensors, (LIDAR, 0.0, (0, 0), "pcd")]:
        # `sensor` as a default is this turn's; by itself it would be the loop's last one.
        def name(of: int, sensor: str = sensor) -> str:
            inside = 0 <= of < scene.num_frames
            return token("data", scene.name, of, sensor) if inside else ""

        stamp = scene.timestamp(time + delay)
        # As in nuScenes the pose has the token of what was recorded there.
        tables["ego_pose"].append(
            {
                "token": name(frame),
                "timestamp": stamp,
                **_placed(scene.base @ scene.ego_pose(time + delay)),
            }
        )
        tables["sample_data"].append(
            {
                "token": name(frame),
                "sample_token": _sample(scene, frame),
                "ego_pose_token": name(frame),
                "calibrated_sensor_token": token("calibrated", scene.name, sensor),
                "timestamp": stamp,
                "fileformat": form,
                "is_key_frame": True,
                "height": height,
                "width": width,
                "filename": _image_path(scene, frame, sensor),
                "prev": name(frame - 1),
                "next": name(frame + 1),
            }
        )
    for index, box in enumerate(scene.boxes(frame)):
        if box.thing.label in CATEGORIES:
            seen = sum(int((shot.owner == index).sum()) for shot in shots)
            tables["sample_annotation"].append(_annotation(scene, frame, box, seen))


def _annotation(scene: Scene, frame: int, box: Box, seen: int) -> dict[str, Any]:
    length, width, height = box.thing.size
    local = pose(box.yaw, (box.centre[0], box.centre[1], box.centre[2]))
    return {
        "token": token("annotation", scene.name, box.thing.name, frame),
        "sample_token": _sample(scene, frame),
        "instance_token": token("instance", scene.name, box.thing.name),
        # Made up: a box is in full view or not at all, and the LiDAR hits what a camera sees.
        "visibility_token": "4" if seen else "1",
        "attribute_tokens": [],
        **_placed(scene.base @ local),
        "size": [width, length, height],  # nuScenes' order
        "prev": "",
        "next": "",
        "num_lidar_pts": min(seen, 200),
        "num_radar_pts": 0,
    }


def _link_annotations(tables: Tables) -> None:
    # Rows of an instance come in the order of time; each links back and completes the one before.
    last: dict[str, dict[str, Any]] = {}
    for row in tables["sample_annotation"]:
        before = last.get(row["instance_token"])
        if before is not None:
            row["prev"], before["next"] = before["token"], row["token"]
        last[row["instance_token"]] = row


def _write_labels(
    root: Path, scene: Scene, frame: int, grid: Grid, shots: list[Shot], *, seed: int
) -> dict[str, Any]:
    """Writes the voxels of a key frame; returns its entry in Occ3D's list."""
    path = f"gts/{scene.name}/{_sample(scene, frame)}/labels.npz"
    # Its own stream of the seed, beside 1 and 2 of the worlds: another grid draws no other traffic.
    generator = np.random.default_rng([seed, 3, scene.epoch // 1_000_000, frame])
    write_arrays(
        root / path,
        semantics=label_voxels(scene, frame, grid),
        mask_lidar=(generator.random(grid.shape) < LIDAR_SHARE).astype(np.uint8),
        mask_camera=visible_voxels(scene, frame, grid, shots).astype(np.uint8),
    )
    time = scene.time(frame)
    cameras = {}
    for shot in shots:
        camera = shot.camera
        cameras[token("data", scene.name, frame, camera.name)] = {
            "img_path": f"{camera.name}/{Path(_image_path(scene, frame, camera.name)).name}",
            "intrinsics": camera.intrinsic.tolist(),
            "extrinsic": _placed(camera.mounting),
            "ego_pose": _placed(scene.base @ scene.ego_pose(time + camera.delay)),
        }
    return {
        "timestamp": str(scene.timestamp(time)),
        "camera_sensor": cameras,
        "ego_pose": _placed(scene.base @ scene.ego_pose(time)),
        "gt_path": path,
        "prev": _sample(scene, frame - 1),
        "next": _sample(scene, frame + 1),
    }


def _can_messages(scene: Scene) -> list[dict[str, Any]]:
    """Returns the pose messages of a drive, which begin before its first key frame."""
    end = scene.time(scene.num_frames - 1)
    messages = []
    # A tenth of a second before and after, so that each key frame has a message before it.
    for number in range(-5, round(end * CAN_RATE) + 6):
        time = number / CAN_RATE
        placed = _placed(scene.base @ scene.ego_pose(time))
        messages.append(
            {
                # To the centre of the arc, v times the yaw rate; gravity is measured upwards.
                "accel": [0.0, scene.speed * scene.yaw_rate, 9.81],
                "orientation": placed["rotation"],
                "pos": placed["translation"],
                "rotation_rate": [0.0, 0.0, scene.yaw_rate],
                "utime": scene.timestamp(time),
                "vel": [scene.speed, 0.0, 0.0],
            }
        )
    return messages
