"""Argoverse 2 with vectorised maps: the frames of an annotation file, and their polylines.

The layout below ``data_root``: ``{train,val,test}_annotations.json`` and the images that they name.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.registry import DATASETS, TRANSFORMS

from internimage.integrations.openmmlab.driving.data.dataset import DrivingDataset
from internimage.integrations.openmmlab.driving.data.frames import (
    check_cameras,
    check_frames,
    dictionary,
    naming_frame,
    text,
    whole_number,
)
from internimage.integrations.openmmlab.driving.data.map_elements import (
    MAP_CLASSES,
    elements_from_annotation,
)
from internimage.integrations.openmmlab.driving.data.openlane_layout import CAMERAS
from internimage.integrations.openmmlab.driving.poses import (
    check_rigid,
    ego_to_image,
    pose_of,
)


@DATASETS.register_module()
class ArgoverseMapDataset(DrivingDataset):
    """The frames of an annotation file of the Online HD Map challenge.

    Args:
        **kwargs: those of ``DrivingDataset``; ``ann_file`` is the annotation file.

    Raises:
        FileNotFoundError: there is no annotation file.
        ValueError: it is none, a frame lacks a camera or a key, a pose is not rigid, or
            there is no polyline to learn in any frame.
    """

    METAINFO: ClassVar[dict[str, Any]] = {"classes": MAP_CLASSES}
    TRUTH = "ann_polylines"

    def load_frames(self) -> list[dict[str, Any]]:
        """Read the frames, with ``ann_polylines`` by class where the split has them."""
        path = Path(self.ann_file)
        if not path.is_file():
            raise FileNotFoundError(
                f"ArgoverseMapDataset: expected an annotation file, got no file {path}"
            )
        try:
            segments = json.loads(path.read_text())
        except ValueError as error:
            raise ValueError(f"ArgoverseMapDataset: expected json, got {path}: {error}") from error
        if not isinstance(segments, dict) or not all(
            isinstance(s, list) for s in segments.values()
        ):
            raise ValueError(
                f"ArgoverseMapDataset: expected a list of frames for each segment, got {path}"
            )
        root = Path(self.data_root or "")
        for segment, members in segments.items():
            check_frames(
                "ArgoverseMapDataset",
                members,
                f"segment {segment} of {path}",
                name=lambda frame: whole_number(frame, "timestamp"),
            )
        frames = [
            _read_frame(frame, segment, root) for segment in segments for frame in segments[segment]
        ]
        empty = sum(not members for members in segments.values())
        if empty and frames:  # without any frame at all the set is refused
            warnings.warn(
                f"ArgoverseMapDataset: {empty:,} of {len(segments):,} scenes of {path} have no "
                "frames and are left out",
                stacklevel=2,
            )
        # The test split has no annotation.
        if not self.test_mode:
            _check_learned(str(path), frames)
        # Counted here, once for the file; elements_from_annotation leaves them out.
        short = sum(
            len(line) < 2
            for frame in frames
            for lines in frame.get("ann_polylines", {}).values()
            for line in lines
        )
        if short:
            warnings.warn(
                f"ArgoverseMapDataset: {short} polylines of {path} have fewer than two points and "
                "are left out",
                stacklevel=2,
            )
        return frames


def _check_learned(file: str, frames: list[dict[str, Any]]) -> None:
    bare = [frame["token"] for frame in frames if "ann_polylines" not in frame]
    if bare:
        raise ValueError(f"ArgoverseMapDataset: expected an annotation to learn in frame {bare[0]}")
    if frames and not any(any(frame["ann_polylines"].values()) for frame in frames):
        raise ValueError(
            f"ArgoverseMapDataset: expected polylines to learn, got none in all {len(frames):,} "
            f"frames of {file}"
        )


def _read_frame(frame: dict[str, Any], segment: str, root: Path) -> dict[str, Any]:
    token = str(frame["timestamp"])  # check_frames has seen it
    with naming_frame("ArgoverseMapDataset", token):
        sensors, pose = dictionary(frame, "sensor"), dictionary(frame, "pose")
        # OpenLane-V2's names and order: its subset A is made of Argoverse 2.
        check_cameras("ArgoverseMapDataset", token, sensors, CAMERAS)
        read = {
            "token": token,
            "scene": segment,
            "timestamp": whole_number(frame, "timestamp") // 1000,  # nanoseconds in the file
            "cameras": list(CAMERAS),
            "img_paths": [str(root / text(sensors[camera], "image_path")) for camera in CAMERAS],
            "ego2img": np.stack(
                [_ego2img(sensors[camera], f"{camera} of frame {token}") for camera in CAMERAS]
            ),
            "image_sizes": None,  # the file does not say them
            "ego2global": pose_of(
                pose["ego2global_rotation"],
                pose["ego2global_translation"],
                f"pose of frame {token}",
            ),
        }
        if frame.get("annotation") is not None:
            read["ann_polylines"] = _read_lines(frame["annotation"], token)
    return read


def _ego2img(sensor: dict[str, Any], name: str) -> np.ndarray:
    # From ego to camera, the other way round than in OpenLane-V2's files.
    ego2camera = check_rigid(sensor["extrinsic"], name)
    return ego_to_image(sensor["intrinsic"], np.linalg.inv(ego2camera), name)


def _read_lines(annotation: dict[str, Any], token: str) -> dict[str, list[Any]]:
    """Return the polylines of our classes.

    Raises:
        ValueError: There are other classes alone, or an entry is of another kind.
    """
    if not isinstance(annotation, Mapping):
        raise ValueError(
            f"ArgoverseMapDataset: expected polylines by class in the annotation of frame {token}, "
            f"got {annotation!r:.40}"
        )
    # A frame may have no line at all; names that we do not know are a spelling mistake.
    if annotation and not set(annotation) & set(MAP_CLASSES):
        raise ValueError(
            f"ArgoverseMapDataset: expected {', '.join(MAP_CLASSES)} in the annotation of frame "
            f"{token}, got {', '.join(annotation)}"
        )
    lines = {name: annotation.get(name, []) for name in MAP_CLASSES}
    for name in MAP_CLASSES:
        if not isinstance(lines[name], list):
            raise ValueError(
                f"ArgoverseMapDataset: expected a list of polylines for {name} in frame {token}, "
                f"got {lines[name]!r:.40}"
            )
        for line in lines[name]:
            # An empty list has no second axis to check; load_frames counts it as short.
            if line != [] and not _are_points(line):
                raise ValueError(
                    f"ArgoverseMapDataset: expected finite points (x, y[, z]) of every {name} in "
                    f"frame {token}, got {str(line)[:80]}"
                )
    return lines


def _are_points(line: Any) -> bool:
    try:
        points = np.asarray(line, np.float64)
    except (ValueError, TypeError):
        return False
    return points.ndim == 2 and points.shape[1] in (2, 3) and bool(np.isfinite(points).all())


@TRANSFORMS.register_module()
class LoadVectorMap(BaseTransform):
    """Makes ``gt_polylines`` of a frame's annotation.

    These are ``polylines``, P float64 arrays (points, 2) in metres, and ``labels`` (P,). A frame of
    the history gets none, and a frame without annotation none either.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add the polylines."""
        if not results["is_history"] and "ann_polylines" in results:
            elements = elements_from_annotation(results["ann_polylines"])
            results["gt_polylines"] = {
                "polylines": elements["polylines"],
                "labels": elements["labels"],
            }
        return results
