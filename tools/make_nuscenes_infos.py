"""Writes the info files of Occ3D-nuScenes, from which its frames are read in training.

python tools/make_nuscenes_infos.py data/occ3d-nus --can-bus data/can_bus

ROOT holds ``samples``, the tables (``v1.0-trainval``), and of Occ3D ``gts`` and
``annotations.json``, which says what scenes are for training and which for validation. Written are
``occ_infos_temporal_train.pkl`` and ``occ_infos_temporal_val.pkl``, in the format of BEVFormer's
tools; LiDAR sweeps and boxes, which occupancy from cameras does not read, are not among it. A
keyframe without voxels and a scene without keyframes are left out and counted. The devkit of
nuScenes is not needed.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from internimage.openmmlab_needed import openmmlab_needed
from tools.nuscenes_tables import (
    LIDAR,
    NuScenesTables,
    Row,
    check_scenes,
    read_json,
    read_motions,
)

with openmmlab_needed("make_nuscenes_infos"):
    import numpy as np

    from internimage.integrations.openmmlab.driving.data.frames import order_frames
    from internimage.integrations.openmmlab.driving.data.occ3d import NUSCENES_CAMERAS, read_frame
    from internimage.integrations.openmmlab.driving.data.pickles import write_pickle
    from internimage.integrations.openmmlab.driving.poses import pose_of, yaw_of
    from tools.command_line import progress, run_tool

NAME = "make_nuscenes_infos"
# Those that annotations.json lists.
SPLITS = ("train", "val")
Motions = Callable[[int], list[float]] | None


def write_infos(
    root: Path, *, can_bus: Path, version: str = "v1.0-trainval", out: Path | None = None
) -> dict[str, Counter[str]]:
    """Writes the info files of both splits.

    Args:
        root: folder of the data set.
        can_bus: folder of the CAN bus expansion.
        version: folder of the tables below ``root``.
        out: folder of the files; None is ``root``.

    Returns:
        For each split how many frames there are (``frames``), and how many scenes or keyframes are
        left out or lack readings.

    Raises:
        FileNotFoundError: A table, or annotations.json, is missing.
        ValueError: One of them is damaged, a keyframe lacks a camera, a pose is not rigid, no
            keyframe is left, or the frames would be refused when they are read.
    """
    tables = NuScenesTables(root / version)
    path = root / "annotations.json"
    annotations = read_json(path)
    for key in (*(f"{split}_split" for split in SPLITS), "scene_infos"):
        if not isinstance(annotations, dict) or key not in annotations:
            raise ValueError(f"{NAME}: expected {key} in {path}, got none")
    truths = _truths(annotations["scene_infos"], path)
    counts, contents = {}, {}
    for split in SPLITS:
        names, count = annotations[f"{split}_split"], Counter[str]()
        check_scenes(names, tables, path)
        infos: list[dict[str, Any]] = []
        with progress(split, len(names)) as advance:
            for name in names:
                motions = read_motions(can_bus, name)
                infos += _scene(tables, name, truths.get(name, {}), motions, count)
                advance(1)
        count["frames"] = len(infos)
        # Read as training will, before anything is written: a refusal here names the frame.
        frames = order_frames(read_frame(info, root) for info in infos)
        lost = sum(not Path(frame["ann_occupancy"]).is_file() for frame in frames)
        if lost:
            count["keyframes whose file of voxels is not there"] = lost
        counts[split], contents[split] = count, infos
    if not any(contents.values()):
        raise ValueError(f"{NAME}: expected keyframes with voxels in {path}, got none of them")
    # Only now, with both splits complete: a mistake in the second leaves no file of the first.
    folder = out or root
    folder.mkdir(parents=True, exist_ok=True)
    for split, infos in contents.items():
        # As BEVFormer's files have it; the reader here looks at `infos` alone.
        metadata = {"version": version}
        write_pickle(
            folder / f"occ_infos_temporal_{split}.pkl", {"infos": infos, "metadata": metadata}
        )
    return counts


def _truths(scene_infos: Any, path: Path) -> dict[str, dict[str, str]]:
    """Returns of each scene the files of its keyframes' voxels, by token.

    Raises:
        ValueError: There is something else.
    """
    found: dict[str, dict[str, str]] = {}
    if not isinstance(scene_infos, dict):
        raise ValueError(f"{NAME}: expected scenes by name in {path}, got {scene_infos!r:.40}")
    for scene, frames in scene_infos.items():
        if not isinstance(frames, dict):
            raise ValueError(
                f"{NAME}: expected keyframes by token of {scene} in {path}, got {frames!r:.40}"
            )
        found[scene] = {}
        for token, entry in frames.items():
            file = entry.get("gt_path") if isinstance(entry, dict) else entry
            # Without a file it is a keyframe without voxels, which is left out and counted.
            if file is None:
                continue
            if not isinstance(entry, dict) or not isinstance(file, str):
                raise ValueError(
                    f"{NAME}: expected a gt_path of keyframe {token} of {scene} in {path}, got "
                    f"{file!r:.40}"
                )
            found[scene][token] = file
    return found


def _scene(
    tables: NuScenesTables,
    name: str,
    truths: dict[str, str],
    motions: Motions,
    count: Counter[str],
) -> list[dict[str, Any]]:
    """Returns the frames of a scene, in the order of time."""
    samples = tables.samples_of(name)
    infos = []
    for index, sample in enumerate(samples):
        # `index` counts those too that are left out: it is the keyframe's place in its scene.
        truth = truths.get(sample["token"])
        if truth is None:
            count["keyframes without voxels, left out"] += 1
            continue
        infos.append(_frame(tables, sample, index, truth, motions))
    if not samples:
        count["scenes without keyframes, left out"] += 1
    elif motions is None:
        count["scenes without CAN readings, whose motions are 0"] += 1
    return infos


def _frame(
    tables: NuScenesTables, sample: Row, index: int, truth: str, motions: Motions
) -> dict[str, Any]:
    token = sample["token"]
    # The ego frame of the LiDAR's time is that of the voxels; cameras have poses of their own.
    row, calibration, pose = tables.recording(token, LIDAR)
    lidar2ego = _pose(calibration, f"{LIDAR} of sample {token}")
    ego2global = _pose(pose, f"ego in sample {token}")
    lidar2global = ego2global @ lidar2ego
    yaw = yaw_of(ego2global)
    can_bus = [
        *pose["translation"],
        *pose["rotation"],
        # The layout of `history.CAN_BUS_SIZE`; 9 zeros where the expansion lacks the scene.
        *(motions(sample["timestamp"]) if motions else [0.0] * 9),
        yaw,
        math.degrees(yaw),
    ]
    return {
        "token": token,
        "prev": sample["prev"],
        "next": sample["next"],
        "scene_token": sample["scene_token"],
        "frame_idx": index,
        "timestamp": sample["timestamp"],
        "can_bus": np.array(can_bus),
        "lidar_path": row["filename"],
        "occ_gt_path": truth,
        "lidar2ego_translation": calibration["translation"],
        "lidar2ego_rotation": calibration["rotation"],
        "ego2global_translation": pose["translation"],
        "ego2global_rotation": pose["rotation"],
        "cams": {
            channel: _camera(tables, token, channel, lidar2global) for channel in NUSCENES_CAMERAS
        },
    }


def _camera(
    tables: NuScenesTables, token: str, channel: str, lidar2global: np.ndarray
) -> dict[str, Any]:
    """Returns a camera's part of a frame; its pose to the LiDAR is at both sensors' own times."""
    row, calibration, pose = tables.recording(token, channel)
    where = f"{channel} of sample {token}"
    camera2global = _pose(pose, where) @ _pose(calibration, where)
    # By way of the world: between the two exposures the car has moved.
    camera2lidar = np.linalg.inv(lidar2global) @ camera2global
    return {
        "data_path": row["filename"],
        "timestamp": row["timestamp"],
        "sensor2ego_translation": calibration["translation"],
        "sensor2ego_rotation": calibration["rotation"],
        "ego2global_translation": pose["translation"],
        "ego2global_rotation": pose["rotation"],
        "sensor2lidar_rotation": camera2lidar[:3, :3],
        "sensor2lidar_translation": camera2lidar[:3, 3],
        "cam_intrinsic": np.array(calibration["camera_intrinsic"]),
        # For the check that a calibration is made for its image: (H, W).
        "image_size": (row["height"], row["width"]),
    }


def _pose(row: Row, name: str) -> np.ndarray:
    return pose_of(row["rotation"], row["translation"], name)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog=NAME, description="Writes the info files of Occ3D-nuScenes."
    )
    parser.add_argument("root", type=Path, metavar="ROOT", help="folder of the data set")
    parser.add_argument(
        "--can-bus", type=Path, required=True, metavar="DIR", help="the CAN bus expansion"
    )
    parser.add_argument("--version", default="v1.0-trainval", help="folder of the tables")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to write; default ROOT")
    args = parser.parse_args(arguments)
    return run_tool(NAME, lambda: _run(args))


def _run(args: argparse.Namespace) -> None:
    if not args.can_bus.is_dir():
        raise ValueError(f"expected the folder of the CAN bus expansion, got {args.can_bus}")
    counts = write_infos(args.root, can_bus=args.can_bus, version=args.version, out=args.out)
    for split, count in counts.items():
        path = (args.out or args.root) / f"occ_infos_temporal_{split}.pkl"
        print(f"{path}: {count.pop('frames'):,} frames")
        for what, number in count.items():
            print(f"{split}: {number:,} {what}")


if __name__ == "__main__":
    sys.exit(main())
