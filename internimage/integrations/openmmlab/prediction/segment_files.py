"""Files in; the class of every pixel and the classes' shares out, on disk."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from internimage.answers import ClassShare
from internimage.integrations.openmmlab.prediction.files import Answer, Failure, predict_files
from internimage.integrations.openmmlab.prediction.segmentor import Segmentor


@dataclasses.dataclass(frozen=True, kw_only=True)
class _LabelMaps:
    """Answers about single images.

    Args:
        segmentor: the model.
        opacity: of the colours over the image, 0-1.
    """

    segmentor: Segmentor
    opacity: float

    @property
    def has_label_maps(self) -> bool:
        """Whether answers about images hold one: they do."""
        return True

    def answer(self, image: np.ndarray) -> Answer:
        """Return the classes in an image (H, W, 3), uint8, blue-green-red."""
        label_map = self.segmentor.segment(image)
        found = self.segmentor.describe(label_map)
        return Answer(
            found={"classes": _rows(found)},
            picture=self.segmentor.draw(image, label_map, opacity=self.opacity),
            counts=Counter({one.label: one.pixels for one in found}),
            label_map=self.segmentor.label_image(label_map),
        )

    def sum_up(self, counts: Counter[Any]) -> dict[str, Any]:
        """Return the classes in all frames of a video."""
        return {"classes": _rows(self.segmentor.shares(counts))}


def segment_files(
    segmentor: Segmentor, inputs: Sequence[str | Path], output: Path, *, opacity: float = 0.5
) -> Iterator[dict[str, Any] | Failure]:
    """Work through images, folders and videos; what fails costs the others nothing.

    Args:
        segmentor: the model.
        inputs: files and folders.
        output: folder for the answers, made if need be.
        opacity: of the colours over the image, 0-1.

    Yields:
        What :func:`~internimage.integrations.openmmlab.prediction.files.predict_files` yields, with
        ``classes``: those in the image or in all of the video, the largest first.

    Raises:
        OSError: the folder cannot be made.
    """
    return predict_files(_LabelMaps(segmentor=segmentor, opacity=opacity), inputs, output)


def _rows(found: Sequence[ClassShare]) -> list[dict[str, Any]]:
    return [dataclasses.asdict(one) for one in found]
