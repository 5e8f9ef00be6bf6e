"""Exported detectors: boxes, labels, scores and masks in an image.

Shape legend: H W image size in pixels, n instances found.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

import numpy as np

from internimage.answer_files import Answer
from internimage.answers import Detection
from internimage.runtime.inputs import prepare
from internimage.runtime.masks import encode_mask, paste_mask
from internimage.runtime.metadata import Metadata
from internimage.runtime.model import ImageLike, Model, read_pixels
from internimage.runtime.pictures import draw_detections
from internimage.runtime.sessions import Run

SCORE_THRESHOLD = 0.3
"""Of detections, as `internimage detect` has it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Detections:
    """What a detector finds in an image, best first.

    Args:
        boxes: (n, 4), float32: left, top, right, bottom in pixels of the image.
        labels: (n,), int64.
        scores: (n,), float32, 0-1.
        masks: of each instance (H, W), bool; None of a detector without masks.
    """

    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    masks: list[np.ndarray] | None


class Detector(Model):
    """An exported detector.

    Args:
        metadata: what the file says of itself.
        run: from its inputs to its outputs, both by name.
        score_threshold: in answers, least score, 0-1.
        topk: in answers, detections an image at most.
    """

    # (N, K, 5), (N, K) and (N, K, 28, 28), K places of which some are empty.
    outputs = {"dets": 2, "labels": 1, "masks": 3}
    needed = (frozenset({"dets", "labels"}),)

    def __init__(
        self,
        metadata: Metadata,
        run: Run,
        *,
        score_threshold: float = SCORE_THRESHOLD,
        topk: int | None = None,
    ) -> None:
        super().__init__(metadata, run)
        self.score_threshold = score_threshold
        self.topk = topk

    def predict(
        self,
        image: ImageLike,
        *,
        score_threshold: float = SCORE_THRESHOLD,
        topk: int | None = None,
    ) -> Detections:
        """Return what is found in an image.

        Args:
            image: a file or pixels.
            score_threshold: leave out what scores less, 0-1.
            topk: of the rest, leave out all but so many.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is no image, or the model cannot take it.
        """
        prepared = prepare(read_pixels(image), self.metadata)
        outputs = self.run(prepared.pixels, prepared.size)
        boxes, scores, labels = outputs["dets"][:, :4], outputs["dets"][:, 4], outputs["labels"]
        # A label of -1 is an empty place: the number of places is fixed, that of objects is not.
        keep = np.flatnonzero((labels >= 0) & (scores >= score_threshold))
        keep = keep[np.argsort(-scores[keep], kind="stable")][:topk]
        # One a side, as mmdet's scale_factor: sides are rounded, so that their ratios differ a bit.
        height, width = prepared.size
        factors = np.array(
            [width / prepared.original[1], height / prepared.original[0]], np.float32
        )
        boxes = boxes[keep] / np.tile(factors, 2)  # (n, 4)
        masks = None
        if "masks" in outputs:
            threshold = self.mask_threshold
            masks = [
                paste_mask(mask, box, prepared.original, threshold)
                for mask, box in zip(outputs["masks"][keep], boxes, strict=True)
            ]
        return Detections(boxes=boxes, labels=labels[keep], scores=scores[keep], masks=masks)

    def describe(self, found: Detections) -> list[Detection]:
        """Return what :meth:`predict` found as plain values."""
        masks: Sequence[np.ndarray | None] = [None] * len(found.labels)
        masks = masks if found.masks is None else found.masks
        rows = zip(
            found.boxes.tolist(), found.labels.tolist(), found.scores.tolist(), masks, strict=True
        )
        return [
            Detection(
                bbox=tuple(bbox),
                label=label,
                class_name=self.metadata.name_of(label),
                score=score,
                mask=None
                if mask is None
                else {"size": list(mask.shape), "counts": encode_mask(mask)},
            )
            for bbox, label, score, mask in rows
        ]

    def answer(self, image: np.ndarray) -> Answer:
        """Return what is found in an image (H, W, 3), uint8, blue-green-red.

        Raises:
            ValueError: the model cannot take it.
        """
        rgb = np.ascontiguousarray(image[..., ::-1])
        found = self.predict(rgb, score_threshold=self.score_threshold, topk=self.topk)
        rows = self.describe(found)
        # The file's palette may be shorter than its labels go.
        palette = self.colour_all(max((one.label for one in rows), default=-1) + 1)
        picture = draw_detections(rgb, rows, found.masks or [], palette)
        return Answer(
            found={"detections": [dataclasses.asdict(one) for one in rows]},
            picture=picture[..., ::-1],
            counts=Counter(detections=len(rows)),
        )
