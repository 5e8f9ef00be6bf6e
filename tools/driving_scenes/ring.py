"""Writes drives with seven cameras twice: as OpenLane-V2 and as vector maps of Argoverse 2.

    openlane/data_dict_subset_A.json
    openlane/SPLIT/SEGMENT/image/CAMERA/TIME.jpg
    openlane/SPLIT/SEGMENT/info/TIME.json
    openlane/data_dict_subset_A_train.pkl  data_dict_subset_A_val.pkl
    argoverse2/train_annotations.json  val_annotations.json
    argoverse2/SPLIT/LOG/sensors/cameras/CAMERA/TIME.jpg

Times are in nanoseconds, as in Argoverse 2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tools.driving_scenes.around import lane_connections, lanes_around, map_around
from tools.driving_scenes.cameras import Shot, take
from tools.driving_scenes.files import to_quaternion, write_plain_json
from tools.driving_scenes.rigs import ring_rig
from tools.driving_scenes.world import Scene, lane_scene, token
from tools.make_openlane_pickles import write_pickles

SPLITS = {"train": ("00000", "00001"), "val": ("00002",)}
LEAST_PIXELS = 12  # of a traffic element that counts
LEAST_SHARE = 0.5  # of its box that nothing covers
LIGHT, SIGN = 1, 2  # categories of traffic elements; the attributes up to yellow are lights'


@dataclass(frozen=True)
class Recording:
    """A drive with the images of all its key frames.

    Args:
        split: ``train`` or ``val``.
        scene: The drive; its name is that of the segment.
        frames: The images of each key frame, the front camera's first.
    """

    split: str
    scene: Scene
    frames: Sequence[Sequence[Shot]]

    @property
    def log(self) -> str:
        """The name of the drive in Argoverse 2."""
        # Logs of Argoverse 2 are UUIDs.
        digits = token("log", self.scene.name)
        return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))

    def stamp(self, frame: int) -> int:
        """Returns the nanoseconds of a key frame."""
        return self.scene.timestamp(self.scene.time(frame)) * 1000

    def ego2global(self, frame: int) -> np.ndarray:
        """Returns the pose (4, 4) of the car in a key frame."""
        return self.scene.base @ self.scene.ego_pose(self.scene.time(frame))


def record(*, num_frames: int, seed: int) -> Iterator[Recording]:
    """Drives along the roads.

    Args:
        num_frames: Key frames a drive.
        seed: Another seed is another world.

    Yields:
        One recording after the other.
    """
    names = [(split, name) for split, segments in SPLITS.items() for name in segments]
    for index, (split, name) in enumerate(names):
        scene = lane_scene(name, index=index, num_frames=num_frames, seed=seed)
        frames = [
            [take(scene, frame, camera, paint=True) for camera in ring_rig()]
            for frame in range(num_frames)
        ]
        yield Recording(split, scene, frames)


def write_openlane(root: Path, recordings: Sequence[Recording]) -> int:
    """Writes ``openlane``; returns how many images there are."""
    count = 0
    # The real list has a test split as well.
    listing: dict[str, dict[str, list[str]]] = {"train": {}, "val": {}, "test": {}}
    for recording in recordings:
        scene, split = recording.scene, recording.split
        names = []
        for frame, shots in enumerate(recording.frames):
            stamp = recording.stamp(frame)
            sensors = {}
            for shot in shots:
                path = f"{split}/{scene.name}/image/{shot.camera.name}/{stamp}.jpg"
                shot.save(root / path)
                sensors[shot.camera.name] = _openlane_camera(shot, path)
                count += 1
            names.append(f"{stamp}.json")
            pose = recording.ego2global(frame)
            content = {
                "version": "OpenLane-V2_subset_A",
                "segment_id": scene.name,
                "meta_data": {"source": "made up", "source_id": recording.log},
                "timestamp": stamp,
                "sensor": sensors,
                "pose": {"rotation": pose[:3, :3].tolist(), "translation": pose[:3, 3].tolist()},
                "annotation": _openlane_annotation(scene, frame, shots[0]),
            }
            write_plain_json(root / split / scene.name / "info" / names[-1], content)
        listing[split][scene.name] = names
    write_plain_json(root / "data_dict_subset_A.json", listing)
    # By the tool that users call; not for the empty test split.
    write_pickles(root, list(SPLITS))
    return count


def write_argoverse(root: Path, recordings: Sequence[Recording]) -> int:
    """Writes ``argoverse2``; returns how many images there are."""
    count = 0
    splits: dict[str, dict[str, Any]] = {split: {} for split in SPLITS}
    for recording in recordings:
        scene, split = recording.scene, recording.split
        frames = []
        for frame, shots in enumerate(recording.frames):
            stamp = recording.stamp(frame)
            sensors = {}
            for shot in shots:
                path = f"{split}/{recording.log}/sensors/cameras/{shot.camera.name}/{stamp}.jpg"
                shot.save(root / path)
                sensors[shot.camera.name] = {
                    "image_path": path,
                    "intrinsic": shot.camera.intrinsic.tolist(),
                    # The other way round than in all other formats: from the car to the camera.
                    "extrinsic": np.linalg.inv(shot.camera.mounting).tolist(),
                }
                count += 1
            pose = recording.ego2global(frame)
            frames.append(
                {
                    "timestamp": str(stamp),
                    "pose": {
                        "ego2global_translation": pose[:3, 3].tolist(),
                        "ego2global_rotation": to_quaternion(pose),
                    },
                    "sensor": sensors,
                    "annotation": map_around(scene, frame),
                }
            )
        splits[split][recording.log] = frames
    for split, content in splits.items():
        write_plain_json(root / f"{split}_annotations.json", content)
    return count


def _openlane_camera(shot: Shot, path: str) -> dict[str, Any]:
    mounting = shot.camera.mounting
    return {
        "image_path": path,
        "extrinsic": {
            "rotation": mounting[:3, :3].tolist(),
            "translation": mounting[:3, 3].tolist(),
        },
        "intrinsic": {"K": shot.camera.intrinsic.tolist(), "distortion": [0.0, 0.0, 0.0]},
    }


def _openlane_annotation(scene: Scene, frame: int, front: Shot) -> dict[str, Any]:
    lanes = lanes_around(scene, frame)
    elements: list[dict[str, Any]] = []
    governed = []
    for index, box in enumerate(scene.boxes(frame)):
        signal = next((s for s in scene.signals if s.name == box.thing.name), None)
        corners = _visible_corners(front, index, box.to_world(box.corners()))
        if signal is None or corners is None:
            continue
        attribute = signal.attribute(frame)
        elements.append(
            {
                # Ids are unique within a frame, lanes and elements together.
                "id": str(1000 + len(elements)),
                # 0-3 are unknown, red, green, yellow.
                "category": LIGHT if attribute <= 3 else SIGN,
                "attribute": attribute,
                "points": corners,
            }
        )
        governed.append(signal.lanes)
    return {
        "lane_centerline": [
            {"id": str(number), "points": points.round(4).tolist()}
            for number, points in enumerate(lanes.values())
        ],
        "traffic_element": elements,
        "topology_lclc": lane_connections(scene, lanes),
        "topology_lcte": [[int(lane in names) for names in governed] for lane in lanes],
    }


def _visible_corners(shot: Shot, index: int, corners: np.ndarray) -> list[list[float]] | None:
    """Returns the box of a thing in the image, unless too little of it is seen."""
    projected = shot.project(corners)
    # A box that reaches behind the camera has no outline in the image.
    if (projected[:, 2] < 0.5).any():
        return None
    size = np.array(shot.camera.size, dtype=float)
    # Annotations end at the image's edge.
    low = projected[:, :2].min(0).clip(0, size)
    high = projected[:, :2].max(0).clip(0, size)
    # Of `owner`, which knows what stands in front.
    pixels = int((shot.owner == index).sum())
    if pixels < max(LEAST_PIXELS, LEAST_SHARE * float(np.prod(high - low))):
        return None
    return [low.round(3).tolist(), high.round(3).tolist()]
