"""Files of images in; where the answers about them go, and their writing. PyTorch is not needed.

Models in PyTorch and exported ones answer alike: the same files with the same content.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from PIL import Image

from internimage.files import write_atomically
from internimage.image import load_image, save_image

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
# Without .gif, which has 256 colours, and .pgm, which has none.
PICTURE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""Pictures keep the input's suffix where it is one of these, and are ``.png`` otherwise."""
VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """What a model says about one image.

    Args:
        found: what goes into the JSON.
        picture: the image with that drawn on it, (H, W, 3), uint8, blue-green-red.
        counts: what can be added up over the frames of a video.
        label_map: an image with a class a pixel, of models that have one.
    """

    found: dict[str, Any]
    picture: np.ndarray
    counts: Counter[Any]
    label_map: Image.Image | None = None


class Predictor(Protocol):
    """Whatever answers about images."""

    @property
    def has_label_maps(self) -> bool:
        """Whether answers about images hold one."""
        ...

    def answer(self, image: np.ndarray) -> Answer:
        """Return the answer about an image (H, W, 3), uint8, blue-green-red.

        Raises:
            ValueError: there is none.
        """
        ...

    def sum_up(self, counts: Counter[Any]) -> dict[str, Any]:
        """Return what the JSON says about a video whose frames have these counts together."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """One input and where its answers go.

    Args:
        source: the image or the video.
        kind: which of the two.
        picture: the annotated image or video.
        answers: JSON, or JSON lines of a video.
        label_map: a class a pixel, of an image and a model that has it.
    """

    source: Path
    kind: Literal["image", "video"]
    picture: Path
    answers: Path
    label_map: Path | None

    @property
    def files(self) -> tuple[Path, ...]:
        """All that may be written."""
        files = (self.picture, self.answers, self.label_map)
        return tuple(file for file in files if file is not None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Failure:
    """An input without an answer.

    Args:
        source: what was given.
        error: why there is none.
    """

    source: Path
    error: Exception


def find_files(inputs: Sequence[str | Path]) -> list[Path | Failure]:
    """Return the files that are given, and those in the folders that are given."""
    sources: list[Path | Failure] = []
    for path in map(Path, inputs):
        sources.extend(_files(path) if path.is_dir() else [path])
    return sources


def answer_names(sources: Sequence[Path]) -> list[str]:
    """Return what the files about each input are called: its stem, or all of its name.

    Args:
        sources: files; the name is that of one whose stem others have as well.
    """
    # A file that is given twice is no clash of stems: it keeps its stem, and its answers clash.
    stems = Counter(path.stem for path in dict.fromkeys(sources))
    return [path.stem if stems[path.stem] == 1 else path.name for path in sources]


def plan(
    inputs: Sequence[str | Path], output: Path, *, label_maps: bool = False
) -> Iterator[Task | Failure]:
    """Yield what there is to do, in the order of the inputs; folders are read, not their folders.

    An answer's file has the stem of its input, or all of its name where that stem is taken.

    Args:
        inputs: files and folders.
        output: folder for the answers.
        label_maps: whether there are label maps among them.
    """
    sources = find_files(inputs)
    paths = [source for source in sources if isinstance(source, Path)]
    given = {path.resolve() for path in paths}
    names = dict(zip(paths, answer_names(paths), strict=True))
    taken: dict[Path, Path] = {}
    for source in sources:
        if isinstance(source, Failure):
            yield source
            continue
        task = _task(source, output, names[source], label_maps=label_maps)
        error = _clash(task, taken, given)
        taken |= dict.fromkeys(task.files, source)
        yield task if error is None else Failure(source=source, error=error)


def predict_image(predictor: Predictor, task: Task) -> dict[str, Any]:
    """Write the picture and the answers about an image; return what the JSON file holds.

    Raises:
        OSError: the image cannot be read, or an answer not be written.
        ValueError: the file is no image, or the model has no answer about it.
    """
    # Blue first is OpenCV's order, which mmdet's and mmseg's pipelines take; a copy, since PyTorch
    # takes no array of negative strides.
    image = np.ascontiguousarray(np.asarray(load_image(task.source))[..., ::-1])
    answer = predictor.answer(image)
    picture = Image.fromarray(answer.picture[..., ::-1])
    row: dict[str, Any] = {
        "image": str(task.source),
        "width": image.shape[1],
        "height": image.shape[0],
        "picture": str(task.picture),
    }
    write_atomically(task.picture, partial(save_image, picture))
    if answer.label_map is not None and task.label_map is not None:
        row["label_map"] = str(task.label_map)
        write_atomically(task.label_map, partial(save_image, answer.label_map))
    row |= answer.found
    # The JSON last: where it is, the files that it names are.
    text = json.dumps(row, indent=2, allow_nan=False)
    write_atomically(task.answers, lambda path: path.write_text(text + "\n", encoding="utf-8"))
    return row


def _files(folder: Path) -> list[Path | Failure]:
    suffixes = (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)
    try:
        found = sorted(path for path in folder.iterdir() if path.suffix.lower() in suffixes)
        if not found:
            raise ValueError(
                f"find_files: expected a folder with images or videos, got {folder} without any "
                "(its folders are not searched)"
            )
    except (OSError, ValueError) as error:
        return [Failure(source=folder, error=error)]
    return [*found]


def _task(source: Path, output: Path, stem: str, *, label_maps: bool) -> Task:
    is_video = source.suffix.lower() in VIDEO_SUFFIXES
    suffix = source.suffix if source.suffix.lower() in PICTURE_SUFFIXES else ".png"
    suffix = ".mp4" if is_video else suffix
    return Task(
        source=source,
        kind="video" if is_video else "image",
        # The stem may be a whole name: photo.jpg stays, and is not photo.jpg.jpg.
        picture=output / (stem if stem.endswith(suffix) else f"{stem}{suffix}"),
        answers=output / f"{stem}{'.jsonl' if is_video else '.json'}",
        label_map=output / f"{stem}_labels.png" if label_maps and not is_video else None,
    )


def _clash(task: Task, taken: dict[Path, Path], given: set[Path]) -> Exception | None:
    """Why an answer cannot be written, or None."""
    for file in task.files:
        if file in taken:
            return ValueError(
                f"plan: expected inputs with names of their own, got {taken[file]} and "
                f"{task.source}"
            )
        # The folder of the inputs may be the output as well, under another name or through a link.
        if file.resolve() in given:
            return ValueError(
                f"plan: expected an output folder in which nothing of the input would be "
                f"replaced, got {file.parent} for {task.source}"
            )
    return None
