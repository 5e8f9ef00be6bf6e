"""Occ3D-nuScenes (arXiv 2304.14365): classes, frames from its info files, grids of its voxels.

The layout below ``data_root``: info files, ``samples/<camera>/<image>`` of nuScenes and
``gts/<scene>/<token>/labels.npz`` of Occ3D.
"""

from __future__ import annotations

import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.registry import DATASETS, TRANSFORMS
from numpy.typing import NDArray

from internimage.integrations.openmmlab.driving.data.dataset import DrivingDataset
from internimage.integrations.openmmlab.driving.data.frames import (
    check_cameras,
    check_frames,
    dictionary,
    naming_frame,
    text,
    token_of,
    whole_number,
)
from internimage.integrations.openmmlab.driving.data.pickles import read_pickle
from internimage.integrations.openmmlab.driving.poses import (
    ego_to_image,
    numbers_of,
    pose_of,
    quaternion_of,
    yaw_of,
)

# Starred rows, so that the formatter gives no name a line of its own.
OCCUPANCY_CLASSES = (
    *("others", "barrier", "bicycle", "bus", "car", "construction_vehicle", "motorcycle"),
    *("pedestrian", "traffic_cone", "trailer", "truck", "driveable_surface", "other_flat"),
    *("sidewalk", "terrain", "manmade", "vegetation", "free"),
)
"""The classes in the order of their labels, 0-17."""

FREE = len(OCCUPANCY_CLASSES) - 1
"""The label of a voxel in which nothing is."""

IGNORED = 255
"""The label of a voxel that nobody has labelled."""

NUSCENES_CAMERAS = (
    *("CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_FRONT_LEFT"),
    *("CAM_BACK", "CAM_BACK_LEFT", "CAM_BACK_RIGHT"),
)
"""The cameras in the order in which the released checkpoints know them."""

# How else a damaged archive fails, the last two in the header of an array; an encrypted one is a
# RuntimeError.
_DAMAGE = (zlib.error, zipfile.BadZipFile, SyntaxError, tokenize.TokenError)


@DATASETS.register_module()
class Occ3DDataset(DrivingDataset):
    """The frames of an info file that ``tools/make_nuscenes_infos.py`` or BEVFormer's tools wrote.

    Args:
        **kwargs: those of ``DrivingDataset``; ``ann_file`` is the info file. Paths in it may begin
            with the folder of another computer: what counts is behind ``samples/`` and ``gts/``. In
            training a frame without voxels is left out; in a test it can be predicted, and a set
            with such frames is refused by ``OccupancyMetric`` before the run, unless that writes a
            submission alone.

    Raises:
        FileNotFoundError: There is no info file.
        ValueError: It is none, a frame lacks a camera or a key, a reading of CAN is not finite, or
            a pose is not rigid.
    """

    METAINFO: ClassVar[dict[str, Any]] = {"classes": OCCUPANCY_CLASSES}
    TRUTH = "ann_occupancy"

    def load_frames(self) -> list[dict[str, Any]]:
        """Read the frames of the info file, with ``ann_occupancy``, the file of their voxels."""
        content = read_pickle(self.ann_file)
        if not isinstance(content, dict) or not isinstance(content.get("infos"), list):
            raise ValueError(
                f"Occ3DDataset: expected a dictionary with the list infos, got {self.ann_file}"
            )
        root = Path(self.data_root or "")
        check_frames("Occ3DDataset", content["infos"], self.ann_file, name=token_of)
        frames = [read_frame(info, root) for info in content["infos"]]
        if self.test_mode:  # the test split has no voxels at all
            return frames
        with_truth = [frame for frame in frames if "ann_occupancy" in frame]
        if len(with_truth) < len(frames):
            warnings.warn(
                f"Occ3DDataset: {len(frames) - len(with_truth):,} of {len(frames):,} frames of "
                f"{self.ann_file} have no voxels to learn and are left out",
                stacklevel=2,
            )
        return with_truth


def read_frame(info: dict[str, Any], root: Path) -> dict[str, Any]:
    """Return a frame of an info file as ``DrivingDataset.load_frames`` has it.

    Args:
        info: one of its ``infos``, with a token: ``check_frames`` has seen it.
        root: folder of the data set.

    Raises:
        ValueError: It lacks a camera or a key, or a value cannot be.
    """
    token = str(info["token"])
    with naming_frame("Occ3DDataset", token):
        sensors = dictionary(info, "cams")
        check_cameras("Occ3DDataset", token, sensors, NUSCENES_CAMERAS)
        cameras = [sensors[name] for name in NUSCENES_CAMERAS]
        lidar2ego = pose_of(
            info["lidar2ego_rotation"], info["lidar2ego_translation"], f"LiDAR of frame {token}"
        )
        frame = {
            "token": token,
            "scene": text(info, "scene_token"),
            "prev": text(info, "prev"),
            "timestamp": whole_number(info, "timestamp"),
            "cameras": list(NUSCENES_CAMERAS),
            "img_paths": [_below(root, text(camera, "data_path"), "samples") for camera in cameras],
            "ego2img": np.stack(
                [
                    _ego2img(camera, lidar2ego, f"{name} of frame {token}")
                    for name, camera in zip(NUSCENES_CAMERAS, cameras, strict=True)
                ]
            ),
            "image_sizes": [
                _image_size(camera, f"{name} of frame {token}")
                for name, camera in zip(NUSCENES_CAMERAS, cameras, strict=True)
            ],
            "ego2global": pose_of(
                info["ego2global_rotation"], info["ego2global_translation"], f"frame {token}"
            ),
            "can_bus": _can_bus(info, token),
        }
        if info.get("occ_gt_path"):
            frame["ann_occupancy"] = _below(root, text(info, "occ_gt_path"), "gts")
    return frame


def _image_size(camera: Mapping[str, Any], name: str) -> tuple[int, int] | None:
    """Return (H, W) in pixels as our own files say it; those of BEVFormer's tools do not."""
    size = camera.get("image_size")
    if size is None:
        return None
    sides = numbers_of(size, f"image_size of {name}")
    if sides.shape != (2,) or not (
        np.isfinite(sides).all() and (sides >= 1).all() and (sides == np.round(sides)).all()
    ):
        raise ValueError(
            f"Occ3DDataset: expected a height and a width in pixels for image_size of {name}, got "
            f"{size!r:.40}"
        )
    return int(sides[0]), int(sides[1])


def _can_bus(info: dict[str, Any], token: str) -> NDArray[np.float32]:
    """Return the readings (18,), with place and heading those of the ego's pose.

    BEVFormer's tools leave the heading 0 and take the place from another clock.
    """
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes inf, which is refused
        # A copy: place and heading are written into it.
        can_bus = numbers_of(info["can_bus"], f"can_bus of frame {token}").astype(np.float32)
    if can_bus.shape != (18,):
        raise ValueError(
            f"Occ3DDataset: expected 18 numbers of can_bus in frame {token}, got shape "
            f"{can_bus.shape}"
        )
    if not np.isfinite(can_bus).all():
        raise ValueError(
            f"Occ3DDataset: expected finite numbers of can_bus in frame {token}, got "
            f"{can_bus[~np.isfinite(can_bus)][0]}"
        )
    pose = pose_of(info["ego2global_rotation"], info["ego2global_translation"], f"frame {token}")
    yaw = yaw_of(pose)
    can_bus[:3] = pose[:3, 3]
    # A quaternion as it stands in the file, with its sign: the released models saw both.
    turn = np.asarray(info["ego2global_rotation"], np.float64)
    can_bus[3:7] = turn if turn.shape == (4,) else quaternion_of(pose[:3, :3])
    can_bus[-2:] = yaw, np.degrees(yaw)  # rad in 0..2 pi, then degrees
    return can_bus


def _ego2img(camera: dict[str, Any], lidar2ego: NDArray[np.float64], name: str) -> NDArray:
    """Return ego2img (4, 4), by way of the LiDAR, at whose time the ego frame is taken."""
    camera2lidar = pose_of(
        camera["sensor2lidar_rotation"], camera["sensor2lidar_translation"], name
    )
    return ego_to_image(camera["cam_intrinsic"], lidar2ego @ camera2lidar, name)


def _below(root: Path, path: str, folder: str) -> str:
    """Return a path of an info file from its last ``folder`` on, below the data set's root."""
    parts = PurePosixPath(path).parts
    # The last one: the root itself may lie in a folder of this name.
    if folder in parts:
        parts = parts[len(parts) - 1 - parts[::-1].index(folder) :]
    return str(root.joinpath(*parts))


@TRANSFORMS.register_module()
class LoadOccupancy(BaseTransform):
    """Reads the voxels of a frame: ``gt_semantics``, ``mask_camera`` and ``mask_lidar``.

    A frame of the history has none, and a frame without truth none either.

    Args:
        shape: (X, Y, Z) of the grid.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is none, or holds other shapes, labels or masks.
    """

    def __init__(self, shape: tuple[int, int, int] = (200, 200, 16)) -> None:  # of 0.4 m
        self.shape = tuple(shape)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add the grids (X, Y, Z), uint8 and bool."""
        if results["is_history"] or "ann_occupancy" not in results:
            return results
        path = Path(results["ann_occupancy"])
        grids = read_voxels(path)
        for name, grid in grids.items():
            if grid.shape != self.shape:
                raise ValueError(
                    f"LoadOccupancy: expected {name} of shape {self.shape} in frame "
                    f"{results['token']}, got {grid.shape} in {path}"
                )
        # The names that PackDrivingInputs keeps: `gt_*` and `mask_*`.
        results["gt_semantics"] = grids.pop("semantics")
        results.update(grids)
        return results


def read_voxels(path: Path) -> dict[str, NDArray[Any]]:
    """Read the voxels of a frame.

    Returns:
        ``semantics`` (X, Y, Z) uint8, ``mask_camera`` and ``mask_lidar`` (X, Y, Z) bool.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is none, or holds other labels or masks.
    """
    if not path.is_file():
        raise FileNotFoundError(f"read_voxels: expected the voxels of a frame, got no file {path}")
    names = ("semantics", "mask_camera", "mask_lidar")
    try:
        file = np.load(path, allow_pickle=False)
        if isinstance(file, np.ndarray):  # of np.save, whatever the file is called
            raise ValueError(f"one array alone, {file.shape}")
        with file:
            grids = {name: np.asarray(file[name]) for name in names}
    except (ValueError, KeyError, OSError, EOFError, MemoryError, RuntimeError, *_DAMAGE) as error:
        raise ValueError(
            f"read_voxels: expected semantics, mask_camera and mask_lidar in {path}, got none: "
            f"{error}"
        ) from error
    for name, grid in grids.items():
        if grid.dtype.kind not in ("iu" if name == "semantics" else "biu"):
            raise ValueError(
                f"read_voxels: expected {name} of whole numbers, got {grid.dtype} in {path}"
            )
        # By value: masks may be stored as bool or as whole numbers.
        values = np.unique(grid)
        allowed = (*range(FREE + 1), IGNORED) if name == "semantics" else (0, 1)
        strange = values[~np.isin(values, allowed)]
        if len(strange):
            said = f"0-{FREE} and {IGNORED}" if name == "semantics" else "0 and 1"
            raise ValueError(f"read_voxels: expected {name} of {said}, got {strange[0]} in {path}")
        grids[name] = grid.astype(np.uint8 if name == "semantics" else bool)
    return grids
