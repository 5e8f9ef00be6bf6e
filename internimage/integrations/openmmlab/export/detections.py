"""How far two sets of detections are apart."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from internimage.export.options import Precision
from internimage.export.report import Difference

TOLERANCE = {"fp32": 1e-3, "fp16": 2.0}  # a trained Mask R-CNN is within 2e-4 in float32
"""Largest difference of a box in pixels; that of a score or mask, 0-1, is :data:`SCORE_TOLERANCE`'s
when it is as large."""

SCORE_TOLERANCE = {"fp32": 1e-4, "fp16": 0.05}
"""Largest difference of a score or of a mask's probability."""

UNPAIRED = {"fp32": 0.01, "fp16": 0.1}
"""Share of the detections that may be others.

Two candidates that are equally good to the last digit change places when a sum is rounded another
way; whatever hangs on their order follows."""


UNIT = "pixels"


@dataclasses.dataclass
class DetectionDifference:
    """Compares a detector's outputs: boxes with scores, classes, perhaps masks, each of N images.

    Args:
        precision: of the exported file.
        count: how many detections have been compared.
    """

    precision: Precision
    count: int = 0

    def __call__(self, expected: Sequence[Tensor], found: Sequence[np.ndarray]) -> Difference:
        """Return the largest difference, of pairs alone where nearly all are pairs.

        A pair are detections of one class whose boxes and scores differ by no more than allowed.
        Infinite for other shapes, for numbers that are not finite, and where a better detection
        stands behind a worse one.

        Args:
            expected: PyTorch's.
            found: ONNX Runtime's.
        """
        arrays = [tensor.numpy() for tensor in expected]  # (N, K, 5), (N, K), (N, K, h, w)
        if [array.shape for array in arrays] != [array.shape for array in found]:
            return Difference(math.inf, UNIT, "other shapes")
        if not all(np.isfinite(array).all() for array in found):
            return Difference(math.inf, UNIT, "NaN or infinity")
        # Pairs may stand in any order, which runners rely on: the K best come first.
        if (np.diff(found[0][:, :, 4]) > 0).any():
            return Difference(math.inf, UNIT, "not in the order of scores")
        images = [
            self._pair([array[i] for array in arrays], [array[i] for array in found])
            for i in range(len(arrays[0]))
        ]
        worst = max(apart for apart, _, _ in images)
        pairs, count = (sum(image[place] for image in images) for place in (1, 2))
        same = f"all {count}" if pairs == count else f"{pairs} of {count}"
        return Difference(worst, UNIT, f"{same} detections are the same")

    def _pair(self, expected: list[np.ndarray], found: list[np.ndarray]) -> tuple[float, int, int]:
        """Return one image's difference, how many pairs there are, and of how many detections."""
        here, there = (np.flatnonzero(arrays[1] >= 0) for arrays in (expected, found))
        self.count += len(here)
        free = there.tolist()  # of the file's, those without a partner so far
        apart = [0.0]
        others = [math.inf] * (len(there) - len(here))  # what has no counterpart at all
        for index in here:
            # The nearest, wherever it stands: equals change places.
            best, partner = min(
                ((self._apart(expected, index, found, other), other) for other in free),
                default=(math.inf, -1),
            )
            if best <= TOLERANCE[self.precision]:
                free.remove(partner)
                apart.append(best)
            else:
                others.append(best)
        count = max(len(here), len(there))
        # A share: in a list of fewer than 100 (half precision: 10) nothing may be missing.
        is_allowed = len(others) <= UNPAIRED[self.precision] * count
        return max(apart if is_allowed else [*apart, *others]), len(apart) - 1, count

    def _apart(
        self, expected: list[np.ndarray], index: int, found: list[np.ndarray], other: int
    ) -> float:
        """Return how far two detections are apart, pixels; infinite for different classes."""
        if expected[1][index] != found[1][other]:
            return math.inf
        boxes = np.abs(expected[0][index] - found[0][other])
        # Scores and masks are written in pixels too, so that one number is compared with one limit.
        pixels_a_score = TOLERANCE[self.precision] / SCORE_TOLERANCE[self.precision]
        apart = [float(boxes[:4].max()), float(boxes[4]) * pixels_a_score]
        if len(expected) > 2:
            masks = np.abs(expected[2][index] - found[2][other])
            apart.append(float(masks.max()) * pixels_a_score)
        return max(apart)
