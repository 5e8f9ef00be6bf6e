"""How far an engine's answers are from ONNX Runtime's.

Maps and logits are compared number by number. Detections are not: two of nearly equal scores may
stand in another order, and one at the edge of a threshold may be missing. They are paired.

Shape legend: N images, K detections of an image.
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
            longest side of the input, of scores as they are.
        longest_side: of the input, pixels.
    """

    tolerance: float
    longest_side: int
    largest: dict[str, float] = field(default_factory=dict)
    detections: int = 0
    others: int = 0

    def add(self, actual: Arrays, expected: Arrays) -> None:
        """Take the outputs of one run.

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
                )
            return
        for name, array in expected.items():
            ours, theirs = actual[name].astype(np.float64), array.astype(np.float64)
            # Over the largest of all, not each over its own: near zero every ratio is large.
            largest = float(np.abs(theirs).max(initial=0.0)) or 1.0
            difference = float(np.abs(ours - theirs).max(initial=0.0)) / largest
            self._note(name, difference)

    def _add_detections(self, actual: Arrays, expected: Arrays) -> None:
        """Pair the detections (K, 5) of one image: of one class, nearest boxes and scores."""
        free = np.flatnonzero(actual["labels"] >= 0).tolist()
        wanted = np.flatnonzero(expected["labels"] >= 0).tolist()
        self.detections += max(len(free), len(wanted))
        self.others += max(len(free) - len(wanted), 0)
        # The best first, as the file has them: each takes the nearest that is left.
        for index in wanted:
            box, score = np.split(expected["dets"][index].astype(np.float64), [4])
            candidates = []
            for other in free:
                if actual["labels"][other] == expected["labels"][index]:
                    their_box, their_score = np.split(actual["dets"][other].astype(np.float64), [4])
                    in_box = float(np.abs(their_box - box).max()) / self.longest_side
                    in_score = float(np.abs(their_score - score).max())
                    candidates.append((max(in_box, in_score), in_box, in_score, other))
            # Not `>`, which NaN would pass.
            if not candidates or not min(candidates)[0] <= self.tolerance:
                self.others += 1
                continue
            _, in_box, in_score, other = min(candidates)
            free.remove(other)
            self._note("boxes", in_box)
            self._note("scores", in_score)

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
