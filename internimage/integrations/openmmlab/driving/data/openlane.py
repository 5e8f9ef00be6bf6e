"""OpenLane-V2, subset A: frames of seven cameras with lanes, traffic elements and topology.

On the disk: ``{train,val,test}/SEGMENT/{image/CAMERA/TIME.jpg, info/TIME.json}`` and
``data_dict_subset_A.json``, which lists the frames of each split. One pickle a split, which
:func:`collect_split` fills, holds all the json files. Letters: n points of a lane, q lanes, k
traffic elements of a frame.
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

from internimage.integrations.openmmlab.driving.bezier import NUM_CONTROL_POINTS, fit_bezier
from internimage.integrations.openmmlab.driving.data.dataset import DrivingDataset
from internimage.integrations.openmmlab.driving.data.frames import (
    naming_frame,
    order_frames,
    text,
)
from internimage.integrations.openmmlab.driving.data.openlane_layout import (
    ATTRIBUTES,
    CAMERAS,
    check_frame,
)
from internimage.integrations.openmmlab.driving.data.pickles import read_pickle
from internimage.integrations.openmmlab.driving.history import can_bus_of_pose
from internimage.integrations.openmmlab.driving.poses import ego_to_image, numbers_of, pose_of

SCORED_INTERVAL = 20
"""Lanes are scored by each 20th of their 201 points."""

_NUM_LANE_POINTS = 201

_FAR = 200.0  # metres; the data set's lanes lie within 50


def collect_split(
    root: Path, frames: Mapping[str, list[str]], split: str
) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Read the json files of a split.

    Args:
        root: the folder with the splits.
        frames: of each segment, names of its json files.
        split: ``train``, ``val`` or ``test``. Lanes of ``train`` keep their points, those of
            the others are thinned to what is scored.

    Returns:
        The frames by (split, segment, time), with arrays: calibration and poses float64, points
        float32, topology int8.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: ``frames`` holds something else or no frame, names one twice or not by its time,
            a file is no json, or :class:`OpenLaneDataset` would refuse what it holds.
    """
    # As the data set's own preparation has it: 201 points to learn from, 11 to be scored by.
    interval = 1 if split == "train" else SCORED_INTERVAL
    if not isinstance(frames, Mapping) or not all(
        isinstance(names, list) and all(isinstance(name, str) for name in names)
        for names in frames.values()
    ):
        raise ValueError(
            f"collect_split: expected names of files by segment for {split}, got {frames!r:.60}"
        )
    collected: dict[tuple[str, str, str], dict[str, Any]] = {}
    read = []
    for segment, names in frames.items():
        for name in names:
            path = root / split / segment / "info" / name
            identifier = (split, segment, Path(name).stem)
            if not _is_name(identifier):
                raise ValueError(
                    f"collect_split: expected TIME.json, nanoseconds, to name each frame, got "
                    f"{path}"
                )
            if identifier in collected:
                raise ValueError(f"collect_split: expected each frame once, got {path} again")
            if not path.is_file():
                raise FileNotFoundError(f"collect_split: expected a frame, got no file {path}")
            try:
                frame = json.loads(path.read_text())
            except ValueError as error:
                raise ValueError(f"collect_split: expected json, got {path}: {error}") from error
            with naming_frame("collect_split", str(path)):
                arrays = _as_arrays(frame, f"frame {path}", interval)
            collected[identifier] = arrays
            # Only "train" is there to be learnt from; the frames of "test" have no annotation.
            read.append(
                read_frame(identifier, arrays, str(path), needs_annotation=split == "train")
            )
    if not collected:
        raise ValueError(f"collect_split: expected at least one frame of {split}, got none")
    order_frames(read)
    if split == "train":
        _check_learnable(f"split {split} of {root}", read)
    return collected


def _as_arrays(frame: Any, where: str, interval: int) -> dict[str, Any]:
    check_calibration(frame, where)
    for name, camera in frame["sensor"].items():
        for part in ("extrinsic", "intrinsic"):
            values = _part(camera, part, f"{name} of {where}")
            camera[part] = {k: numbers_of(v, f"{name} of {where}") for k, v in values.items()}
    frame["pose"] = {key: numbers_of(v, f"{key} of {where}") for key, v in frame["pose"].items()}
    annotation = frame.get("annotation")
    if annotation:
        check_frame(annotation, where)
        lanes, elements = annotation["lane_centerline"], annotation["traffic_element"]
        for lane in lanes:
            lane["points"] = thinned(np.asarray(lane["points"], np.float32), interval)
        for element in elements:
            element["points"] = np.asarray(element["points"], np.float32)
        for key, columns in (("topology_lclc", lanes), ("topology_lcte", elements)):
            # The types of the data set's own pickles; check_frame allows 0 and 1 alone.
            matrix = np.asarray(annotation[key], np.int8)
            # A list of no rows has no second axis.
            annotation[key] = matrix.reshape(len(lanes), len(columns))
    return frame


def check_calibration(frame: Any, where: str) -> None:
    """Check that a frame has all cameras, and each of them its image and its place.

    Raises:
        ValueError: a camera or a part of its calibration is missing, or the pose of the ego.
    """
    sensor = _part(frame, "sensor", where)
    for camera in CAMERAS:
        own, name = _part(sensor, camera, where), f"{camera} of {where}"
        _part(own, "image_path", name)
        _part(_part(own, "intrinsic", name), "K", name)
    for place, name in [
        (_part(frame, "pose", where), f"pose of {where}"),
        *((_part(sensor[c], "extrinsic", f"{c} of {where}"), f"{c} of {where}") for c in CAMERAS),
    ]:
        _part(place, "rotation", name)
        _part(place, "translation", name)


def _part(whole: Any, part: str, where: str) -> Any:
    if not isinstance(whole, Mapping) or part not in whole:
        raise ValueError(f"openlane: expected {part} in {where}, got none")
    return whole[part]


def thinned(points: np.ndarray, interval: int) -> np.ndarray:
    """Return each ``interval``-th point of a lane that has the data set's 201; others stay."""
    # Every count but the set's is as it is meant, 11 of a pickle that was thinned already too.
    return points[::interval] if len(points) == _NUM_LANE_POINTS else points


@DATASETS.register_module()
class OpenLaneDataset(DrivingDataset):
    """OpenLane-V2, subset A, from the pickle of a split.

    Args:
        **kwargs: those of ``DrivingDataset``: ``data_root``, the folder of the images, and
            ``ann_file``, the pickle.

    Raises:
        FileNotFoundError: there is no such pickle.
        ValueError: it is none, a frame lacks a camera, its poses are not rigid, or there is neither
            a lane nor a traffic element to learn in any frame.
    """

    METAINFO: ClassVar[dict[str, Any]] = {"classes": ATTRIBUTES}
    TRUTH = "ann_openlane"

    def load_frames(self) -> list[dict[str, Any]]:
        """Read the frames of the pickle."""
        frames = read_pickle(self.ann_file)
        if not isinstance(frames, dict):
            raise ValueError(
                "OpenLaneDataset: expected a pickle of frames by (split, segment, time), got "
                f"another one, {self.ann_file}; tools/make_openlane_pickles.py makes it"
            )
        for number, name in enumerate(frames):
            if not _is_name(name):
                raise ValueError(
                    "OpenLaneDataset: expected (split, segment, time) to name each frame of "
                    f"{self.ann_file}, got {name!r:.60} for number {number}; "
                    "tools/make_openlane_pickles.py makes such a pickle"
                )
        read = []
        for name, frame in frames.items():
            _, segment, time = name
            # A time alone names no frame: two drives may be recorded at once.
            token = f"{segment}-{time}"
            read.append(
                read_frame(
                    name,
                    frame,
                    token,
                    data_root=self.data_root or "",
                    needs_annotation=not self.test_mode,
                )
            )
        if not self.test_mode:
            _check_learnable(self.ann_file, read)
        _count_unseen(self.ann_file, read)
        return read


def read_frame(
    name: tuple[str, str, str],
    frame: dict[str, Any],
    where: str,
    *,
    data_root: str = "",
    needs_annotation: bool,
) -> dict[str, Any]:
    """Return a frame of a pickle as ``DrivingDataset.load_frames`` has it.

    Args:
        name: split, segment and time.
        frame: what the pickle holds by that name.
        where: names it in errors.
        data_root: folder of the images.
        needs_annotation: whether there has to be something to learn.

    Raises:
        ValueError: it lacks a camera or the annotation, or its poses are not rigid.
    """
    with naming_frame("OpenLaneDataset", where):
        check_calibration(frame, f"frame {where}")
        _, segment, time = name
        sensors, pose = frame["sensor"], frame["pose"]
        ego2global = pose_of(pose["rotation"], pose["translation"], f"pose of frame {where}")
        matrices = []
        for camera in CAMERAS:
            extrinsic, place = sensors[camera]["extrinsic"], f"{camera} of frame {where}"
            # From camera to ego, the other way round than in the files of vectorised maps.
            camera2ego = pose_of(extrinsic["rotation"], extrinsic["translation"], place)
            matrices.append(ego_to_image(sensors[camera]["intrinsic"]["K"], camera2ego, place))
        read = {
            "token": f"{segment}-{time}",
            "identifier": tuple(name),  # what a submission names the frame by
            "scene": segment,
            # Nanoseconds in the files.
            "timestamp": int(time) // 1000,
            "cameras": list(CAMERAS),
            "img_paths": [
                str(Path(data_root, text(sensors[camera], "image_path"))) for camera in CAMERAS
            ],
            "front_intrinsic": np.asarray(sensors[CAMERAS[0]]["intrinsic"]["K"], np.float64),
            # The json files do not say sizes; the loader looks at the principal point instead.
            "image_sizes": None,
            "ego2img": np.stack(matrices),
            "ego2global": ego2global,
            # The data set has no readings; the model makes them relative.
            "can_bus": can_bus_of_pose(ego2global).astype(np.float32),
        }
        if frame.get("annotation"):
            check_frame(frame["annotation"], f"frame {where}")
            read["ann_openlane"] = frame["annotation"]
        elif needs_annotation:
            raise ValueError(f"OpenLaneDataset: expected an annotation to learn in frame {where}")
        return read


def _is_name(name: Any) -> bool:
    """Whether a key of a pickle names a frame: two texts and a time in nanoseconds."""
    if not isinstance(name, tuple) or len(name) != 3:
        return False
    split, segment, time = name
    # The time orders the frames. ASCII: "²" is a digit as well, and no number.
    is_time = str(time).isascii() and str(time).isdigit()
    return is_time and all(isinstance(part, str) and part for part in (split, segment))


def _check_learnable(file: str, frames: list[dict[str, Any]]) -> None:
    """Check that there is a lane or a traffic element in any of the frames.

    Raises:
        ValueError: there is neither.
    """
    annotations = [frame["ann_openlane"] for frame in frames]
    if frames and not any(a["lane_centerline"] or a["traffic_element"] for a in annotations):
        raise ValueError(
            f"OpenLaneDataset: expected lanes or traffic elements to learn, got none in all "
            f"{len(frames):,} frames of {file}"
        )


def _count_unseen(file: str, frames: list[dict[str, Any]]) -> None:
    """Warn of what lies where no model sees it, with its number."""
    num_far = num_outside = num_points = 0
    for frame in frames:
        # The principal point lies within 0.3-0.7 of an image's sides (LoadDrivingImages), which
        # are no longer than this, hence.
        sides = frame.pop("front_intrinsic")[:2, 2] / 0.3
        annotation = frame.get("ann_openlane")
        if annotation is None:
            continue
        lanes, elements = annotation["lane_centerline"], annotation["traffic_element"]
        num_far += sum(
            bool(np.linalg.norm(np.asarray(lane["points"])[:, :2], axis=1).min() > _FAR)
            for lane in lanes
        )
        num_points += sum(not np.ptp(lane["points"], axis=0).any() for lane in lanes)
        for element in elements:
            low, high = np.asarray(element["points"], np.float64)
            num_outside += bool((low > sides).any() or (high < 0).any())
    for count, what in (
        (num_far, f"lanes that come nowhere within {_FAR:.0f} m of the car"),
        (num_points, "lanes whose points are all the same"),
        (num_outside, "boxes of traffic elements outside of the image"),
    ):
        if count:
            warnings.warn(f"OpenLaneDataset: {file} has {count:,} {what}", stacklevel=2)


@TRANSFORMS.register_module()
class LoadOpenLane(BaseTransform):
    """Makes ``gt_lanes`` of the annotation; a frame of the test split, without one, has none.

    It holds ``lanes`` (q arrays (n, 3), ego metres), ``control_points`` (q, 15) of their Bezier
    curves, ``boxes`` (k, 4), corners in pixels of the front image as it lies on the disk,
    ``attributes`` (k,), ``topology_lclc`` (q, q) and ``topology_lcte`` (q, k).

    Args:
        for_scoring: thin lanes to the points by which they are scored, as the pickles of ``val``
            have them already.
    """

    def __init__(self, for_scoring: bool = False) -> None:
        self.interval = SCORED_INTERVAL if for_scoring else 1

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add ``gt_lanes``."""
        annotation = results.get("ann_openlane")
        if annotation is None or results.get("is_history"):
            return results
        lines = [np.asarray(lane["points"]) for lane in annotation["lane_centerline"]]
        elements = annotation["traffic_element"]
        # Of all points that there are, thinned or not.
        control = np.array([fit_bezier(line).ravel() for line in lines], np.float32)
        results["gt_lanes"] = {
            "lanes": [thinned(line, self.interval) for line in lines],
            "control_points": control.reshape(-1, 3 * NUM_CONTROL_POINTS),
            # (k, 2, 2) to (k, 4). The shapes are said here and below for frames without any entry.
            "boxes": np.array([e["points"] for e in elements], np.float32).reshape(-1, 4),
            "attributes": np.array([e["attribute"] for e in elements], np.int64),
            "topology_lclc": np.reshape(annotation["topology_lclc"], (len(lines), len(lines))),
            "topology_lcte": np.reshape(annotation["topology_lcte"], (len(lines), len(elements))),
        }
        return results
