"""Video files by OpenCV, one frame in memory at a time."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

# Before OpenCV opens its first video: FFmpeg's own remarks on a broken file would go to stderr.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

import cv2
import numpy as np

CODEC = "mp4v"  # MPEG-4 part 2: the one for .mp4 that every build of OpenCV can write


@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoFacts:
    """What the header of a video says.

    Args:
        width: pixels.
        height: pixels.
        fps: frames a second.
        num_frames: how many; 0 where the header does not say. Some formats only estimate it.
    """

    width: int
    height: int
    fps: float
    num_frames: int


def read_facts(path: Path) -> VideoFacts:
    """Read the header of a video.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no video that OpenCV can read.
    """
    capture = _open(path, "read_facts")
    try:
        fps = capture.get(cv2.CAP_PROP_FPS)
        if not math.isfinite(fps) or fps <= 0:
            raise ValueError(f"read_facts: expected a video with a frame rate, got {path}")
        return VideoFacts(
            width=int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)),
            height=int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)),
            fps=fps,
            # FFmpeg has a huge negative number where it does not know.
            num_frames=max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT))),
        )
    finally:
        capture.release()


def read_frames(path: Path) -> Iterator[np.ndarray]:
    """Yield the frames of a video, (H, W, 3), uint8, blue-green-red.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no video that OpenCV can read.
    """
    capture = _open(path, "read_frames")
    try:
        while True:
            there, frame = capture.read()
            if not there:
                break
            yield frame
    finally:
        capture.release()


class VideoWriter:
    """Writes frames into an mp4 file; used as a context.

    Args:
        path: the file, ``*.mp4``.
        fps: frames a second.

    Raises:
        ValueError: OpenCV cannot write such a video.
    """

    def __init__(self, path: Path, fps: float) -> None:
        self._path = path
        self._fps = fps
        self._writer: cv2.VideoWriter | None = None

    def __enter__(self) -> VideoWriter:
        """Open nothing yet: the first frame has the size."""
        return self

    def write(self, frame: np.ndarray) -> None:
        """Append one frame (H, W, 3), uint8, blue-green-red, all of one size."""
        # The codec halves the colours' resolution: an odd row or column would be cut off.
        odd_rows, odd_columns = (side % 2 for side in frame.shape[:2])
        frame = cv2.copyMakeBorder(frame, 0, odd_rows, 0, odd_columns, cv2.BORDER_REPLICATE)
        if self._writer is None:
            code = cv2.VideoWriter.fourcc(*CODEC)
            height, width = frame.shape[:2]
            self._writer = cv2.VideoWriter(str(self._path), code, self._fps, (width, height))
            if not self._writer.isOpened():
                raise ValueError(
                    f"VideoWriter: expected frames that OpenCV can write as {CODEC} into "
                    f"{self._path}, got {width}x{height} pixels, {self._fps:g} a second"
                )
        self._writer.write(frame)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.release()


def _open(path: Path, function: str) -> cv2.VideoCapture:
    if not path.exists():
        raise FileNotFoundError(f"{function}: expected an existing video file, got {path}")
    level = cv2.getLogLevel()
    cv2.setLogLevel(0)  # the error below says it
    try:
        capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    finally:
        cv2.setLogLevel(level)
    if not capture.isOpened():
        raise ValueError(
            f"{function}: expected a video file, got {path}, which is none that OpenCV can read"
        )
    return capture
