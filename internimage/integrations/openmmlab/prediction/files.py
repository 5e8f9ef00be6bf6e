"""Images, folders and videos in; for each its picture and its answers out, on disk."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from internimage.answer_files import Answer, Failure, Predictor, Task, plan, predict_image
from internimage.files import write_atomically
from internimage.integrations.openmmlab.prediction.video import (
    VideoWriter,
    read_facts,
    read_frames,
)

__all__ = ["Answer", "Failure", "predict_files"]


def predict_files(
    predictor: Predictor, inputs: Sequence[str | Path], output: Path
) -> Iterator[dict[str, Any] | Failure]:
    """Work through images, folders and videos; what fails costs the others nothing.

    Args:
        predictor: the model.
        inputs: files and folders.
        output: folder for the answers, made if need be.

    Yields:
        For an image what its JSON file holds: ``image``, ``width``, ``height``, ``picture`` and
        perhaps ``label_map`` (the files' names), and what was found; for a video ``video``,
        ``width``, ``height``, ``fps``, ``frames``, the sum of what was found, ``picture`` and
        ``answers`` (the files' names); for anything else a :class:`Failure`.

    Raises:
        OSError: the folder cannot be made.
    """
    output.mkdir(parents=True, exist_ok=True)
    run = {"image": predict_image, "video": predict_video}
    for task in plan(inputs, output, label_maps=predictor.has_label_maps):
        if isinstance(task, Failure):
            yield task
            continue
        try:
            yield run[task.kind](predictor, task)
        except (ValueError, OSError) as error:
            yield Failure(source=task.source, error=error)


def predict_video(predictor: Predictor, task: Task) -> dict[str, Any]:
    """Write the annotated video and one line of answers a frame; return a summary.

    Raises:
        OSError: the video cannot be read, or an answer not be written.
        ValueError: the file is no video, ends early, or the model has no answer about a frame.
    """
    facts = read_facts(task.source)
    frames = 0
    counts: Counter[Any] = Counter()

    def write_lines(lines_path: Path) -> None:
        write_atomically(task.picture, lambda path: write_both(path, lines_path))

    def write_both(video_path: Path, lines_path: Path) -> None:
        nonlocal frames
        with (
            VideoWriter(video_path, facts.fps) as writer,
            lines_path.open("w", encoding="utf-8") as lines,
        ):
            for index, frame in enumerate(read_frames(task.source)):
                answer = predictor.answer(frame)
                writer.write(answer.picture)
                # Of a constant rate, as the film that is written here has it.
                row = {"frame": index, "time": index / facts.fps, **answer.found}
                lines.write(json.dumps(row, allow_nan=False) + "\n")
                frames = index + 1
                counts.update(answer.counts)
        if frames == 0:
            raise ValueError(
                f"predict_video: expected a video with frames, got none: {task.source}"
            )

    # The film is named first, the answers last: where they are, both are whole.
    write_atomically(task.answers, write_lines)
    # The count in a header is off by a few frames in some formats, not by a tenth.
    if frames < 0.9 * facts.num_frames - 2:
        raise ValueError(
            f"predict_video: expected {facts.num_frames} frames as the header says, got {frames} "
            f"in {task.source}, truncated or broken; {task.picture} has those"
        )
    return {
        "video": str(task.source),
        "width": facts.width,
        "height": facts.height,
        "fps": facts.fps,
        "frames": frames,
        **predictor.sum_up(counts),
        "picture": str(task.picture),
        "answers": str(task.answers),
    }
