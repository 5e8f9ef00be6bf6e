"""How many pixels of which label the masks of a data set have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from internimage.integrations.openmmlab.data.faults import Findings
from internimage.integrations.openmmlab.data.mask_file import NUM_LABELS, MaskFile

SHOWN = 12  # labels in an example


class LabelCounts:
    """The labels of the masks, mask by mask.

    Args:
        classes: their names.
        reduce_zero_label: label 0 is ignored, and 1 is the first class.
        ignore_index: the label that is not learned.
    """

    def __init__(
        self, classes: Sequence[str], *, reduce_zero_label: bool, ignore_index: int
    ) -> None:
        self.classes = tuple(classes)
        self.pixels = np.zeros(len(classes), dtype=np.int64)
        self.masks_with = np.zeros(len(classes), dtype=np.int64)
        self.ignored = 0
        self.num_read = 0
        self._seen = np.zeros(NUM_LABELS, dtype=bool)
        self._num_ignored_masks = 0
        self._reduced = reduce_zero_label
        # What each label of a file becomes: with the zero reduced, 0 and 255 become 255, as in
        # mmseg's loader, and nothing becomes 254.
        self._labels = np.arange(NUM_LABELS)
        if reduce_zero_label:
            self._labels = np.roll(self._labels, 1)
            self._labels[[0, 255]] = 255
        self._is_ignored = self._labels == ignore_index
        self._is_known = (self._labels < len(classes)) & ~self._is_ignored

    def add(self, path: Path, mask: MaskFile, found: Findings) -> None:
        """Count the labels of a mask."""
        if mask.counts is None:
            return
        self.num_read += 1
        self.see(mask)
        seen = mask.counts > 0  # (256,)
        ignored = int(mask.counts[self._is_ignored].sum())
        self.ignored += ignored
        if ignored == mask.counts.sum():
            self._num_ignored_masks += 1
            found.add("ignored mask", str(path))
        known = self._is_known & seen
        # No two labels of a file become one class: each index is there once.
        self.pixels[self._labels[known]] += mask.counts[known]
        self.masks_with[self._labels[known]] += 1
        (unknown,) = np.nonzero(seen & ~self._is_known & ~self._is_ignored)
        if len(unknown):
            found.add("unknown label", f"{path} has {self._describe(unknown, mask.counts)}")

    @property
    def is_black_and_white(self) -> bool:
        """Whether all masks so far hold 0 and 255 alone, which several classes do not."""
        (seen,) = np.nonzero(self._seen)
        return len(self.classes) > 1 and seen.tolist() == [0, 255] and bool(self._is_ignored[255])

    def see(self, mask: MaskFile) -> None:
        """Take in which labels a mask has, and count nothing."""
        if mask.counts is not None:
            self._seen |= mask.counts > 0

    def judge(self, found: Findings, *, is_complete: bool) -> None:
        """Note what all the masks together are."""
        if not self.num_read:
            return
        if self.is_black_and_white:
            found.add("black and white")
        if not is_complete:
            return  # what follows is about all masks: the first few prove nothing
        if self._num_ignored_masks == self.num_read:
            found.add("nothing labelled", "0 is ignored, too" if self._reduced else "")
            return
        total = int(self.pixels.sum()) + self.ignored
        if self.ignored > total / 2:
            found.add("much ignored", f"{self.ignored / total:.0%}")
        for name, count in zip(self.classes, self.pixels, strict=True):
            if not count:
                found.add("class without pixels", name)

    def _describe(self, labels: np.ndarray, counts: np.ndarray) -> str:
        """Say which labels are in a file that no class has, and what a class would have."""
        shown = ", ".join(
            f"{label} ({counts[label]:,} pixels)" for label in labels[:SHOWN].tolist()
        )
        more = f" and {len(labels) - SHOWN} more" if len(labels) > SHOWN else ""
        first = int(self._reduced)
        last = len(self.classes) - 1 + first
        return f"{shown}{more}; the {len(self.classes)} classes are {first}-{last}"
