"""Exported segmentors: the class of every pixel of an image.

Shape legend: H W image size in pixels.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import numpy as np
from PIL import Image

from internimage.answer_files import Answer
from internimage.answers import class_shares, label_image
from internimage.runtime.inputs import prepare
from internimage.runtime.label_maps import label_scores, scores_of_windows
from internimage.runtime.model import ImageLike, Model, read_pixels
from internimage.runtime.pictures import lay_colours


class Segmentor(Model):
    """An exported segmentor."""

    has_label_maps = True
    outputs = {"scores": 3, "labels": 2}  # (N, C, H, W), (N, H, W)
    needed = (frozenset({"scores"}), frozenset({"labels"}))

    def predict(self, image: ImageLike) -> np.ndarray:
        """Return the class of every pixel of an image, (H, W), uint8, or uint16 of over 256.

        Args:
            image: a file or pixels.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is no image, or the model cannot take it.
        """
        prepared = prepare(read_pixels(image), self.metadata)
        if self.metadata.window:
            outputs = {"scores": scores_of_windows(self._score, prepared.pixels, self.metadata)}
        else:
            outputs = self.run(prepared.pixels, prepared.size)
        # Without padding, before anything is enlarged: its scores would run into the image's.
        height, width = prepared.size
        if "scores" in outputs:
            scores = outputs["scores"][:, :height, :width]
            self.colour_all(max(len(scores), 2))  # one output tells two classes apart
            return label_scores(scores, prepared.original, self.mask_threshold)
        labels = outputs["labels"][:height, :width]
        self.colour_all(int(labels.max()) + 1)
        # Labels have no values between them.
        enlarged = Image.fromarray(labels).resize(prepared.original[::-1], Image.Resampling.NEAREST)
        # Of over 256 classes a file has int32; 16 bits are what a PNG can hold.
        kind = np.uint8 if labels.dtype == np.uint8 else np.uint16
        return np.asarray(enlarged).astype(kind)

    def _score(self, window: np.ndarray) -> np.ndarray:
        """Return the scores (C, h, w) of a window (3, h, w)."""
        found = self.run(window, (window.shape[1], window.shape[2]))
        if "scores" not in found:
            raise ValueError(
                "Segmentor.predict: expected a model with scores, as its windows are to be added "
                f"up, got {self.metadata.model} with labels"
            )
        return found["scores"]

    def answer(self, image: np.ndarray) -> Answer:
        """Return the classes in an image (H, W, 3), uint8, blue-green-red.

        Raises:
            ValueError: the model cannot take it.
        """
        rgb = np.ascontiguousarray(image[..., ::-1])
        label_map = self.predict(rgb)
        counts = np.bincount(label_map.ravel())
        pixels = {label: count for label, count in enumerate(counts.tolist()) if count}
        return Answer(
            found=self.sum_up(Counter(pixels)),
            picture=lay_colours(rgb, label_map, self.palette)[..., ::-1],
            counts=Counter(pixels),
            label_map=label_image(label_map, self.palette),
        )

    def sum_up(self, counts: Counter[Any]) -> dict[str, Any]:
        """Return the classes of pixels whose numbers were added up."""
        shares = class_shares(counts, self.metadata.classes)
        return {"classes": [dataclasses.asdict(share) for share in shares]}
