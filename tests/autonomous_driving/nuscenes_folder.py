"""A small folder in the layout of Occ3D-nuScenes: tables, noise for images, random voxels."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

CAMERAS = (
    *("CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_FRONT_LEFT"),
    *("CAM_BACK", "CAM_BACK_LEFT", "CAM_BACK_RIGHT"),
)
SHAPE = (6, 8, 3)
SIZE = (24, 40)
"""Height and width of an image."""
NUM_FRAMES = 4
SCENES = {"scene-0001": "train", "scene-0002": "train", "scene-0003": "val"}


def token_of(scene: str, frame: int) -> str:
    return f"{scene}-frame{frame}"


def write_folder(root: Path, *, seed: int = 0) -> Path:
    """Writes the folder ``occ3d-nus`` and beside it ``can_bus``; returns the former."""
    rng = np.random.default_rng(seed)
    folder, can_bus = root / "occ3d-nus", root / "can_bus"
    can_bus.mkdir(parents=True)
    tables = _tables(rng)
    (folder / "v1.0-mini").mkdir(parents=True)
    for name, rows in tables.items():
        (folder / "v1.0-mini" / f"{name}.json").write_text(json.dumps(rows))
    for row in tables["sample_data"]:
        if row["filename"].startswith("samples/CAM"):
            path = folder / row["filename"]
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
            Image.fromarray(noise).save(path)
    infos: dict[str, Any] = {}
    for scene in SCENES:
        messages = [
            {
                "utime": 1_000_000 * step + 7,
                **{"accel": [step, 0, 0], "rotation_rate": [0, step, 0], "vel": [0, 0, step]},
            }
            for step in range(NUM_FRAMES + 1)
        ]
        (can_bus / f"{scene}_pose.json").write_text(json.dumps(messages))
        for frame in range(NUM_FRAMES):
            path = Path("gts", scene, token_of(scene, frame), "labels.npz")
            infos.setdefault(scene, {})[token_of(scene, frame)] = {"gt_path": str(path)}
            (folder / path).parent.mkdir(parents=True)
            masks = rng.integers(0, 2, (2, *SHAPE), dtype=np.uint8)
            semantics = rng.integers(0, 18, SHAPE, dtype=np.uint8)
            np.savez(folder / path, semantics=semantics, mask_camera=masks[0], mask_lidar=masks[1])
    splits: dict[str, list[str]] = {"train_split": [], "val_split": []}
    for scene, split in SCENES.items():
        splits[f"{split}_split"].append(scene)
    (folder / "annotations.json").write_text(json.dumps({**splits, "scene_infos": infos}))
    return folder


def _tables(rng: np.random.Generator) -> dict[str, list[dict[str, Any]]]:
    tables: dict[str, list[dict[str, Any]]] = {
        "scene": [{"token": f"token of {name}", "name": name} for name in SCENES],
        **{name: [] for name in ("sample", "sensor", "calibrated_sensor", "sample_data")},
        "ego_pose": [],
    }
    for channel in ("LIDAR_TOP", *CAMERAS):
        tables["sensor"].append({"token": f"sensor {channel}", "channel": channel})
        intrinsic = [[30.0, 0, 19.0], [0, 31.0, 13.0], [0, 0, 1]]
        tables["calibrated_sensor"].append(
            {
                "token": f"calibration {channel}",
                "sensor_token": f"sensor {channel}",
                "camera_intrinsic": [] if channel == "LIDAR_TOP" else intrinsic,
                **_pose(rng, 1.0),
            }
        )
    for scene in SCENES:
        for frame in range(NUM_FRAMES):
            _add_frame(tables, rng, scene, frame)
    return tables


def _add_frame(
    tables: dict[str, list[dict[str, Any]]], rng: np.random.Generator, scene: str, frame: int
) -> None:
    token = token_of(scene, frame)
    tables["sample"].append(
        {
            "token": token,
            "scene_token": f"token of {scene}",
            "timestamp": 1_000_000 * (frame + 1),
            "prev": token_of(scene, frame - 1) if frame else "",
            "next": token_of(scene, frame + 1) if frame < NUM_FRAMES - 1 else "",
        }
    )
    for channel in ("LIDAR_TOP", *CAMERAS):
        for is_key_frame in (True, False):
            name = f"{token} {channel} {is_key_frame}"
            folder = "samples" if is_key_frame else "sweeps"
            tables["ego_pose"].append({"token": f"pose {name}", **_pose(rng, 600.0)})
            tables["sample_data"].append(
                {
                    "token": name,
                    "sample_token": token,
                    "ego_pose_token": f"pose {name}",
                    "calibrated_sensor_token": f"calibration {channel}",
                    "filename": f"{folder}/{channel}/{token}.png",
                    "is_key_frame": is_key_frame,
                    "timestamp": 1_000_000 * (frame + 1) + 13,
                    "height": SIZE[0],
                    "width": SIZE[1],
                }
            )


def _pose(rng: np.random.Generator, distance: float) -> dict[str, list[float]]:
    x, y, z, w = Rotation.random(random_state=rng).as_quat()
    return {
        "rotation": [w, x, y, z],
        "translation": rng.uniform(-distance, distance, 3).tolist(),
    }


@contextmanager
def change_table(folder: Path, name: str) -> Iterator[list[dict[str, Any]]]:
    """Yields the rows of a table to change, and writes them back."""
    path = folder / "v1.0-mini" / f"{name}.json"
    rows = json.loads(path.read_text())
    yield rows
    path.write_text(json.dumps(rows))
