"""Exported classifiers: the best classes of an image."""

from __future__ import annotations

import numpy as np

from internimage.answers import Label
from internimage.runtime.inputs import prepare
from internimage.runtime.model import ImageLike, Model, read_pixels

TOPK = 5
"""Labels an image, as `internimage predict` has it."""


class Classifier(Model):
    """An exported classifier."""

    outputs = {"logits": 1}  # (N, classes)
    needed = (frozenset({"logits"}),)

    def predict(self, image: ImageLike, *, topk: int = TOPK) -> list[Label]:
        """Return the best classes of an image, best first.

        Args:
            image: a file or pixels.
            topk: how many.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is no image, the model cannot take it, or ``topk`` is less than 1.
        """
        if topk < 1:
            raise ValueError(f"Classifier.predict: expected topk >= 1, got {topk}")
        prepared = prepare(read_pixels(image), self.metadata)
        logits = self.run(prepared.pixels, prepared.size)["logits"].astype(np.float64)
        # Less the largest one, which changes nothing and keeps exp() from overflowing.
        scores = np.exp(logits - logits.max())
        scores /= scores.sum()
        # Stable: of equal scores the first class stays the first.
        best = np.argsort(-scores, kind="stable")[:topk].tolist()
        return [
            Label(index=index, name=self.metadata.name_of(index), score=float(scores[index]))
            for index in best
        ]
