"""From scores of windows or whole images to the class of every pixel, as mmseg computes it.

Shape legend: C classes, H W of the resized image in pixels, Ho Wo of the original one.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from internimage.answers import MAX_INDEXED
from internimage.runtime.metadata import Metadata
from internimage.runtime.resizing import resize_maps
from internimage.windows import window_spans

VALUES_AT_ONCE = 2**21  # 8 MiB of float32
"""Scores that are resized together: those of 150 classes of a photo would be gigabytes."""


def label_scores(scores: np.ndarray, size: tuple[int, int], threshold: float) -> np.ndarray:
    """Return the class of every pixel, (Ho, Wo), uint8, or uint16 of more than 256 classes.

    Args:
        scores: (C, H, W), float32.
        size: Ho, Wo.
        threshold: of a single class, the probability above which a pixel is of it.
    """
    kind = np.uint8 if len(scores) <= MAX_INDEXED else np.uint16
    labels = np.empty(size, dtype=kind)
    band = max(VALUES_AT_ONCE // (len(scores) * size[1]), 1)
    for first in range(0, size[0], band):
        rows = slice(first, min(first + band, size[0]))
        found = resize_maps(scores, size, rows)  # (C, rows, Wo)
        if len(scores) > 1:
            labels[rows] = found.argmax(axis=0)
        else:
            # More than the threshold, as mmseg; mmdet's masks are of the threshold and more.
            labels[rows] = 1 / (1 + np.exp(-found[0].astype(np.float64))) > threshold
    return labels


def scores_of_windows(
    score: Callable[[np.ndarray], np.ndarray], pixels: np.ndarray, metadata: Metadata
) -> np.ndarray:
    """Return the scores (C, H, W) of a whole image: the mean of the windows that see a pixel.

    Args:
        score: from a window (3, h, w) to its scores (C, h, w).
        pixels: (3, H, W), float32, normalised.
        metadata: of a model with windows.
    """
    assert metadata.window is not None
    (crop_height, crop_width), stride = metadata.window["size"], metadata.window["stride"]
    height, width = pixels.shape[1:]
    rows = window_spans(height, crop_height, stride[0])
    columns = window_spans(width, crop_width, stride[1])
    total: np.ndarray | None = None
    seen = np.zeros((height, width), dtype=np.float32)
    for row in rows:
        for column in columns:
            found = score(np.ascontiguousarray(pixels[:, row, column]))
            if total is None:  # only the scores say how many classes there are
                total = np.zeros((len(found), height, width), dtype=np.float32)
            total[:, row, column] += found
            seen[row, column] += 1
    assert total is not None  # there is a window
    total /= seen
    return total
