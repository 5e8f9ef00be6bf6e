"""Images, folders and videos in; for each its picture and its detections out, on disk."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from internimage.files import write_atomically
from internimage.image import load_image
from internimage.integrations.openmmlab.detection.inference import Detector
from internimage.integrations.openmmlab.detection.video import (
    VIDEO_SUFFIXES,
    VideoWriter,
    read_facts,
    read_frames,
)

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
PICTURE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""Pictures keep the input's suffix where it is one of these, and are ``.png`` otherwise."""

JPEG_QUALITY = 95


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """One input and where its answers go.

    Args:
        source: the image or the video.
        kind: which of the two.
        picture: the annotated image or video.
        answers: the detections, JSON, or JSON lines of a video.
    """

    source: Path
    kind: Literal["image", "video"]
    picture: Path
    answers: Path


@dataclasses.dataclass(frozen=True, kw_only=True)
class Failure:
    """An input without an answer.

    Args:
        source: what was given.
        error: why there is none.
    """

    source: Path
    error: Exception


def plan(inputs: Sequence[str | Path], output: Path) -> Iterator[Task | Failure]:
    """Yield what there is to do, in the order of the inputs; folders are read, not their folders.

    An answer's file has the stem of its input, or all of its name where that stem is taken.
    """
    sources: list[Path | Failure] = []
    for path in map(Path, inputs):
        sources.extend(_files(path) if path.is_dir() else [path])
    paths = [source for source in sources if isinstance(source, Path)]
    given = {path.resolve() for path in paths}
    stems = [path.stem for path in dict.fromkeys(paths)]
    taken: dict[Path, Path] = {}
    for source in sources:
        if isinstance(source, Failure):
            yield source
            continue
        task = _task(source, output, source.stem if stems.count(source.stem) == 1 else source.name)
        error = _clash(task, taken, given)
        taken[task.picture] = source
        yield task if error is None else Failure(source=source, error=error)


def detect_files(
    detector: Detector,
    inputs: Sequence[str | Path],
    output: Path,
    *,
    score_threshold: float = 0.3,
    topk: int | None = None,
) -> Iterator[dict[str, Any] | Failure]:
    """Work through images, folders and videos; what fails costs the others nothing.

    Args:
        detector: the model.
        inputs: files and folders.
        output: folder for the answers, made if need be.
        score_threshold: leave out what scores less, 0-1.
        topk: of the rest, leave out all but so many an image.

    Yields:
        For an image what its JSON file holds (``image``, ``width``, ``height``, ``detections``,
        and ``picture``, the file's name); for a video ``video``, ``width``, ``height``, ``fps``,
        ``frames``, ``detections`` (how many in all), ``picture`` and ``answers``, the files' names;
        for anything else a :class:`Failure`.

    Raises:
        OSError: the folder cannot be made.
    """
    output.mkdir(parents=True, exist_ok=True)
    run = {"image": detect_image, "video": detect_video}
    for task in plan(inputs, output):
        if isinstance(task, Failure):
            yield task
            continue
        try:
            yield run[task.kind](detector, task, score_threshold=score_threshold, topk=topk)
        except (ValueError, OSError) as error:
            yield Failure(source=task.source, error=error)


def detect_image(
    detector: Detector, task: Task, *, score_threshold: float, topk: int | None
) -> dict[str, Any]:
    """Write the picture and the detections of an image; return what the JSON file holds."""
    rgb = np.asarray(load_image(task.source))
    image = np.ascontiguousarray(rgb[..., ::-1])
    instances = detector.detect(image, score_threshold=score_threshold, topk=topk)
    picture = Image.fromarray(detector.draw(image, instances)[..., ::-1])
    answer = {
        "image": str(task.source),
        "width": image.shape[1],
        "height": image.shape[0],
        "picture": str(task.picture),
        "detections": [dataclasses.asdict(found) for found in detector.describe(instances)],
    }
    write_atomically(task.picture, lambda path: picture.save(path, quality=JPEG_QUALITY))
    text = json.dumps(answer, indent=2, allow_nan=False)
    write_atomically(task.answers, lambda path: path.write_text(text + "\n", encoding="utf-8"))
    return answer


def detect_video(
    detector: Detector, task: Task, *, score_threshold: float, topk: int | None
) -> dict[str, Any]:
    """Write the annotated video and one line of detections a frame; return a summary."""
    facts = read_facts(task.source)
    frames = detections = 0

    def write_lines(lines_path: Path) -> None:
        write_atomically(task.picture, lambda path: write_both(path, lines_path))

    def write_both(video_path: Path, lines_path: Path) -> None:
        nonlocal frames, detections
        with (
            VideoWriter(video_path, facts.fps) as writer,
            lines_path.open("w", encoding="utf-8") as lines,
        ):
            for index, frame in enumerate(read_frames(task.source)):
                instances = detector.detect(frame, score_threshold=score_threshold, topk=topk)
                writer.write(detector.draw(frame, instances))
                found = [dataclasses.asdict(one) for one in detector.describe(instances)]
                row = {"frame": index, "time": index / facts.fps, "detections": found}
                lines.write(json.dumps(row, allow_nan=False) + "\n")
                frames, detections = index + 1, detections + len(found)
        if frames == 0:
            raise ValueError(f"detect_video: expected a video with frames, got none: {task.source}")

    write_atomically(task.answers, write_lines)
    # The count in a header is off by a few frames in some formats, not by a tenth.
    if frames < 0.9 * facts.num_frames - 2:
        raise ValueError(
            f"detect_video: expected {facts.num_frames} frames as the header says, got {frames} in "
            f"{task.source}, truncated or broken; {task.picture} has those"
        )
    return {
        "video": str(task.source),
        "width": facts.width,
        "height": facts.height,
        "fps": facts.fps,
        "frames": frames,
        "detections": detections,
        "picture": str(task.picture),
        "answers": str(task.answers),
    }


def _files(folder: Path) -> list[Path | Failure]:
    suffixes = (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)
    try:
        found = sorted(path for path in folder.iterdir() if path.suffix.lower() in suffixes)
        if not found:
            raise ValueError(
                f"detect_files: expected a folder with images or videos, got {folder} without any "
                "(its folders are not searched)"
            )
    except (OSError, ValueError) as error:
        return [Failure(source=folder, error=error)]
    return [*found]


def _task(source: Path, output: Path, stem: str) -> Task:
    is_video = source.suffix.lower() in VIDEO_SUFFIXES
    suffix = source.suffix if source.suffix.lower() in PICTURE_SUFFIXES else ".png"
    suffix = ".mp4" if is_video else suffix
    return Task(
        source=source,
        kind="video" if is_video else "image",
        picture=output / (stem if stem.endswith(suffix) else f"{stem}{suffix}"),
        answers=output / f"{stem}{'.jsonl' if is_video else '.json'}",
    )


def _clash(task: Task, taken: dict[Path, Path], given: set[Path]) -> Exception | None:
    """Why an answer cannot be written, or None."""
    if task.picture in taken:
        return ValueError(
            f"detect_files: expected inputs with names of their own, got {taken[task.picture]} and "
            f"{task.source}"
        )
    if task.picture.resolve() in given:
        return ValueError(
            f"detect_files: expected an output folder in which nothing of the input would be "
            f"replaced, got {task.picture.parent} for {task.source}"
        )
    return None
