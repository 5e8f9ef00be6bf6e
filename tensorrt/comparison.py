"""How far an engine's answers are from ONNX Runtime's.

Maps and logits are compared number by number. Detections are not: two of nearly equal scores may
stand in another order, and one at the edge of a threshold may be missing. They are paired.

Shape legend: N images, K detections of an image, h w pixels of a mask within its box.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

Arrays = Mapping[str, np.ndarray]

# Not measured: no engine has run so far. TF32 and float16 round a factor by up to 2^-11 = 5e-4.
WHOLE, SHORT = 1e-3, 2e-2
"""Largest difference allowed: of float32 products, and of those of TF32 or float16."""

SHARE_OF_OTHERS = 0.1  # as the export allows a half detector
"""Of the detections: so many may have no counterpart."""


@dataclass
class Comparison:
    """Outputs of several runs against those of another runtime.

    Args:
        tolerance: largest difference, over the largest value of the output; of boxes over the
            longest side of the input, of scores as they are, of masks the mean of their pixels.
    """

    tolerance: float
    largest: dict[str, float] = field(default_factory=dict)
    detections: int = 0
    others: int = 0

    def add(self, actual: Arrays, expected: Arrays, *, longest_side: int) -> None:
        """Take the outputs of one run.

        Args:
            actual: of the engine, by name.
            expected: of the other runtime.
            longest_side: of the run's input, pixels.

        Raises:
            ValueError: they have other names or shapes.
        """
        # An engine may have further outputs; those of the file have to be there.
        for name, array in expected.items():
            if name not in actual or actual[name].shape != array.shape:
                got = actual[name].shape if name in actual else ", ".join(actual)
                raise ValueError(f"expected the output {name} {array.shape}, got {got}")
        if "dets" in expected:
            for image in range(len(expected["dets"])):
                self._add_detections(
                    {name: array[image] for name, array in actual.items()},
                    {name: array[image] for name, array in expected.items()},
                    longest_side,
                )
            return
        for name, array in expected.items():
            ours, theirs = actual[name].astype(np.float64), array.astype(np.float64)
            # Over the largest of all, not each over its own: near zero every ratio is large.
            largest = float(np.abs(theirs).max(initial=0.0)) or 1.0
            difference = float(np.abs(ours - theirs).max(initial=0.0)) / largest
            self._note(name, difference)

    def _add_detections(self, actual: Arrays, expected: Arrays, longest_side: int) -> None:
        """Pair the detections of one image: of one class, nearest boxes, scores and masks."""
        free = np.flatnonzero(actual["labels"] >= 0).tolist()
        wanted = np.flatnonzero(expected["labels"] >= 0).tolist()
        self.detections += max(len(free), len(wanted))
        self.others += max(len(free) - len(wanted), 0)
        # The best first, as the file has them: each takes the nearest that is left.
        for index in wanted:
            candidates = []
            for other in free:
                if actual["labels"][other] == expected["labels"][index]:
                    apart = _apart(actual, other, expected, index, longest_side)
                    candidates.append((max(apart.values()), other, apart))
            nearest, other, apart = min(candidates, default=(float("inf"), -1, {}))
            # Not `>`, which NaN would pass.
            if not nearest <= self.tolerance:
                self.others += 1
                continue
            free.remove(other)
            for name, difference in apart.items():
                self._note(name, difference)

    def _note(self, name: str, difference: float) -> None:
        """Keep the larger one; NaN is larger than all."""
        known = self.largest.get(name, 0.0)
        self.largest[name] = difference if not difference <= known else known

    @property
    def lines(self) -> list[str]:
        """What is printed: a line for each output."""
        lines = [f"{name}: {difference:.2e}" for name, difference in self.largest.items()]
        if self.detections:
            same = self.detections - self.others
            lines.append(f"detections: {same} of {self.detections} the same")
        return lines

    def check(self) -> None:
        """Raise where the outputs are not the same.

        Raises:
            ValueError: a difference is over the tolerance, or nothing was compared.
        """
        if not self.largest and not self.others:
            raise ValueError(
                "expected something to compare, got no detection in either runtime: name images "
                "that show some"
            )
        for name, difference in self.largest.items():
            if not difference <= self.tolerance:
                raise ValueError(
                    f"expected a difference of {name} <= {self.tolerance:g}, got {difference:.2e}"
                )
        if self.others > SHARE_OF_OTHERS * self.detections:
            raise ValueError(
                f"expected {1 - SHARE_OF_OTHERS:.0%} of the detections to be the same, got "
                f"{self.detections - self.others} of {self.detections}"
            )


def _apart(
    actual: Arrays, other: int, expected: Arrays, index: int, longest_side: int
) -> dict[str, float]:
    """Return how far two detections of one image are apart: box, score, and mask if there is one.

    Args:
        actual: ``dets`` (K, 5), ``labels`` (K,), perhaps ``masks`` (K, h, w).
        other: which of these.
        expected: the same of the other runtime.
        index: which of those.
        longest_side: of the input, pixels.
    """
    differences = {
        name: np.abs(actual[name][other].astype(np.float64) - expected[name][index])
        for name in ("dets", "masks")
        if name in expected
    }
    box, score = np.split(differences["dets"], [4])
    apart = {"boxes": float(box.max()) / longest_side, "scores": float(score.max())}
    # The mean: a box that is moved within the tolerance moves an edge in the mask, where a single
    # pixel changes by much more.
    if "masks" in differences:
        apart["masks"] = float(differences["masks"].mean())
    return apart
