"""The format of what travels inside an exported file; written by the export, read by the runner.

One property of the ONNX file, :data:`KEY`, holds the JSON text of one object. Its fields are those
of :class:`internimage.runtime.metadata.Metadata`, and ``format``.
"""

from __future__ import annotations

from typing import Literal

KEY = "internimage"
"""The ONNX property that holds the JSON text."""

FORMAT = 1
"""Raised when a field changes its meaning."""

TaskName = Literal["classification", "detection", "segmentation"]
TASKS: tuple[TaskName, ...] = ("classification", "detection", "segmentation")

RESIZE_FIELDS: dict[str, frozenset[str]] = {
    "crop": frozenset({"shorter_side", "size", "filter"}),
    "keep_ratio": frozenset({"scale", "filter", "pad_divisor", "pad_to", "pad_value"}),
    "exact": frozenset({"size", "filter"}),
}
"""Way of resizing (``mode``) -> the fields that it must have. Sizes are [H, W], ``scale`` is
[long side, short side], pixels.

- ``crop``: the shorter side becomes ``shorter_side``, then the middle ``size`` is cut out.
- ``keep_ratio``: as large as ``scale`` allows (None: as it is), resized once more to multiples of
  ``multiple_of`` where that is given, then padded with ``pad_value`` on the right and at
  the bottom up to ``pad_to`` (a side of None: as far as the other rule says) or to a multiple of
  ``pad_divisor``; None pads nothing.
- ``exact``: both sides become ``size``; padding as above where it is given.
"""

OPTIONAL_RESIZE_FIELDS = frozenset({"multiple_of", "pad_divisor", "pad_to", "pad_value"})
"""Fields of resizing that may be left out where they are none of the mode's own."""
