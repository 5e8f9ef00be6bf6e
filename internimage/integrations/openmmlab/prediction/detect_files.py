"""Files in; the boxes, masks and scores of what a detector finds in them out, on disk."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from internimage.integrations.openmmlab.prediction.detector import Detector
from internimage.integrations.openmmlab.prediction.files import Answer, Failure, predict_files


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Detections:
    """Answers about single images.

    Args:
        detector: the model.
        score_threshold: leave out what scores less, 0-1.
        topk: of the rest, leave out all but so many an image.
    """

    detector: Detector
    score_threshold: float
    topk: int | None

    @property
    def has_label_maps(self) -> bool:
        """Whether answers about images hold one: they have boxes."""
        return False

    def answer(self, image: np.ndarray) -> Answer:
        """Return what is found in an image (H, W, 3), uint8, blue-green-red."""
        instances = self.detector.detect(
            image, score_threshold=self.score_threshold, topk=self.topk
        )
        found = [dataclasses.asdict(one) for one in self.detector.describe(instances)]
        return Answer(
            found={"detections": found},
            picture=self.detector.draw(image, instances),
            counts=Counter(detections=len(found)),
        )

    def sum_up(self, counts: Counter[Any]) -> dict[str, Any]:
        """Return how many there were in all frames of a video."""
        return {"detections": counts["detections"]}


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
        What :func:`~internimage.integrations.openmmlab.prediction.files.predict_files` yields; the
        answer about an image has ``detections``, that about a video has how many they are in all.

    Raises:
        OSError: the folder cannot be made.
    """
    look = _Detections(detector=detector, score_threshold=score_threshold, topk=topk)
    return predict_files(look, inputs, output)
