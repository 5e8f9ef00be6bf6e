"""The tables of nuScenes as they are on the disk, and the readings of its vehicle."""

from __future__ import annotations

import bisect
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Row = dict[str, Any]

LIDAR = "LIDAR_TOP"

# What is read of a row; `_rows` sees to it that each one has it.
_SAMPLE = ("token", "scene_token", "timestamp", "prev", "next")
_RECORDING = (
    *("sample_token", "is_key_frame", "filename", "timestamp", "height", "width"),
    *("calibrated_sensor_token", "ego_pose_token"),
)
_POSE = ("token", "rotation", "translation")
_CALIBRATION = (*_POSE, "sensor_token", "camera_intrinsic")
# Of another kind they would end in an error that names no file, or in none: a number as a token.
_TEXTS = ("name", "channel", "filename", "prev", "next")
_NUMBERS = ("timestamp", "height", "width")


def read_json(path: Path) -> Any:
    """Returns the content of a JSON file.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(f"read_json: expected an existing file, got {path}")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"read_json: expected JSON in {path}, got {error}") from error


class NuScenesTables:
    """Scenes, keyframes and what their sensors recorded.

    The whole tables of sweeps are large; only rows of keyframes stay in memory.

    Args:
        folder: of the tables, as ``v1.0-trainval``.

    Raises:
        FileNotFoundError: A table is missing.
        ValueError: A table is damaged, or a row lacks a key or has a value of another kind.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.scenes = {row["name"]: row for row in self._rows("scene", "name", "token")}
        self.samples = {row["token"]: row for row in self._rows("sample", *_SAMPLE)}
        # sample_data names a calibration, that a sensor, and that at last the channel.
        channels = {
            row["token"]: row["channel"] for row in self._rows("sensor", "token", "channel")
        }
        self.calibrations = {
            row["token"]: row for row in self._rows("calibrated_sensor", *_CALIBRATION)
        }
        self.recordings: dict[str, dict[str, Row]] = {}
        for row in self._rows("sample_data", *_RECORDING):
            if row["is_key_frame"]:
                calibration = self._calibration(row)
                channel = channels.get(calibration["sensor_token"], "")
                # Radars have keyframes too.
                if channel == LIDAR or channel.startswith("CAM_"):
                    self.recordings.setdefault(row["sample_token"], {})[channel] = row
        # A pose belongs to each row of sample_data, sweeps included.
        needed = {
            row["ego_pose_token"] for rows in self.recordings.values() for row in rows.values()
        }
        self.poses = {
            row["token"]: row for row in self._rows("ego_pose", *_POSE) if row["token"] in needed
        }

    def samples_of(self, scene: str) -> list[Row]:
        """Returns the keyframes of a scene in the order of time; none where it is empty."""
        token = self.scenes[scene]["token"]
        return sorted(self._by_scene.get(token, ()), key=lambda row: row["timestamp"])

    def recording(self, sample: str, channel: str) -> tuple[Row, Row, Row]:
        """Returns what a sensor recorded in a keyframe, its calibration and the vehicle's pose.

        Raises:
            ValueError: It recorded nothing, or its pose is missing.
        """
        row = self.recordings.get(sample, {}).get(channel)
        if row is None:
            raise ValueError(f"expected a recording of {channel} in sample {sample}, got none")
        pose = self.poses.get(row["ego_pose_token"])
        if pose is None:
            raise ValueError(
                f"expected an ego pose of {channel} in sample {sample}, got none with the token "
                f"{row['ego_pose_token']}"
            )
        return row, self._calibration(row), pose

    def _calibration(self, row: Row) -> Row:
        calibration = self.calibrations.get(row["calibrated_sensor_token"])
        if calibration is None:
            raise ValueError(
                f"expected the calibration of {row['filename']}, got none with the token "
                f"{row['calibrated_sensor_token']}"
            )
        return calibration

    @functools.cached_property
    def _by_scene(self) -> dict[str, list[Row]]:
        members: dict[str, list[Row]] = {}
        for row in self.samples.values():
            members.setdefault(row["scene_token"], []).append(row)
        return members

    def _rows(self, table: str, *keys: str) -> list[Row]:
        path = self.folder / f"{table}.json"
        rows = read_json(path)
        if not isinstance(rows, list):
            raise ValueError(f"expected a list of rows in {path}, got {type(rows).__name__}")
        for number, row in enumerate(rows):
            for key in keys:
                if not isinstance(row, dict) or key not in row:
                    raise ValueError(f"expected {key} in row {number} of {path}, got none")
                kind = _missed_kind(key, row[key])
                if kind:
                    raise ValueError(
                        f"expected {kind} as {key} in row {number} of {path}, got {row[key]!r:.40}"
                    )
        return rows


def _missed_kind(key: str, value: Any) -> str | None:
    """Returns what a value should be and is not; None where it is right."""
    if key in _NUMBERS:
        # JSON's true is a number in Python.
        right = isinstance(value, int) and not isinstance(value, bool)
        return None if right else "a whole number"
    if key in _POSE[1:]:
        right = isinstance(value, list) and all(isinstance(x, int | float) for x in value)
        return None if right else "a list of numbers"
    if key == "camera_intrinsic":
        right = isinstance(value, list) and all(isinstance(row, list) for row in value)
        return None if right else "a matrix"
    if key in _TEXTS or key.endswith("token"):
        return None if isinstance(value, str) else "a text"
    return None


def read_motions(folder: Path, scene: str) -> Callable[[int], list[float]] | None:
    """Returns the accelerations, rotation rates and velocities of a scene's vehicle at a time.

    Those of the last message before the time, or of the first where there is none before: what
    the original's tools read, who take a part of them from the message that follows.

    Args:
        folder: of the CAN bus expansion.
        scene: its name.

    Returns:
        A function from microseconds to 9 numbers; None where the expansion has no such scene, as
        for a few of nuScenes.

    Raises:
        ValueError: The file is damaged, or a message lacks a key.
    """
    path = folder / f"{scene}_pose.json"
    if not path.is_file():
        return None
    messages = read_json(path)
    # In the order of the vector, whatever that of the file's keys.
    keys = ("accel", "rotation_rate", "vel")
    try:
        times = [int(message["utime"]) for message in messages]
        values = [[float(x) for key in keys for x in message[key]] for message in messages]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"expected messages with utime, {', '.join(keys)} in {path}, got {error!r}"
        ) from error
    # Looked up by bisection, which out of order finds anything.
    wrong = next((row for row in values if len(row) != 9), None)
    if not times or wrong is not None or times != sorted(times):
        got = "none" if not times else f"{len(wrong)} numbers" if wrong else "another order"
        raise ValueError(
            f"expected messages of 3 x 3 numbers in the order of time in {path}, got {got}"
        )
    # A copy each time: the caller may change it.
    return lambda time: list(values[max(bisect.bisect_right(times, time) - 1, 0)])


def check_scenes(names: Any, tables: NuScenesTables, where: Path) -> None:
    """Checks the names of scenes.

    Args:
        names: What a file has for the list of them.
        tables: Where they are looked up.
        where: The file.

    Raises:
        ValueError: It is no list of names, or the tables do not have one.
    """
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"expected a list of the scenes of a split in {where}, got {names!r:.40}")
    missing = [name for name in names if name not in tables.scenes]
    if missing:
        raise ValueError(
            f"expected the scenes of {where} in {tables.folder}, got none named "
            f"{', '.join(missing[:3])}{' and others' if len(missing) > 3 else ''}"
        )
