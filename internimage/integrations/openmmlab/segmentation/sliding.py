"""Windows that slide over an image: where they stand, and the mean of what they see.

Shape legend: N batch, C classes, H W of the image in pixels, h w of a window.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from internimage.windows import window_spans


def check_sliding(settings: Mapping[str, Any]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the size of the windows and their distance, each (height, width) in pixels.

    Args:
        settings: a segmentor's ``test_cfg``, with ``crop_size`` and ``stride``.

    Raises:
        ValueError: one of them is missing or no pair of positive integers, or the windows stand so
            far apart that there are pixels between them.
    """
    pairs = []
    for name in ("crop_size", "stride"):
        pair = settings.get(name)
        if (
            not isinstance(pair, Sequence)
            or len(pair) != 2
            or not all(isinstance(side, int) and side > 0 for side in pair)
        ):
            raise ValueError(
                "InternImageSegmentor: expected test_cfg of mode slide with "
                f"{name} = (height, width), positive pixels, got {pair!r}"
            )
        pairs.append((pair[0], pair[1]))
    crop_size, stride = pairs
    if stride[0] > crop_size[0] or stride[1] > crop_size[1]:
        raise ValueError(
            "InternImageSegmentor: expected test_cfg with stride <= crop_size, so that the windows "
            f"leave no pixel out, got stride = {stride} and crop_size = {crop_size}"
        )
    return crop_size, stride


def mean_over_windows(
    score: Callable[[Tensor], Tensor],
    images: Tensor,
    num_classes: int,
    crop_size: tuple[int, int],
    stride: tuple[int, int],
) -> Tensor:
    """Return the scores (N, C, H, W) of whole images, window by window.

    There is one array of the images' size, to which each window's scores are added where it stands;
    the window and all that was computed for it are gone before the next.

    Args:
        score: from a window (N, 3, h, w) to its scores (N, C, h, w).
        images: (N, 3, H, W).
        num_classes: C.
        crop_size: height and width of a window, pixels.
        stride: from one window to the next, down and across, pixels.
    """
    height, width = images.shape[2:]
    rows = window_spans(height, crop_size[0], stride[0])
    columns = window_spans(width, crop_size[1], stride[1])
    if len(rows) == len(columns) == 1:
        return score(images)  # without a second array of the scores' size
    scores = images.new_zeros(len(images), num_classes, height, width)
    for row in rows:
        for column in columns:
            scores[:, :, row, column] += score(images[:, :, row, column])
    # Windows are a grid: a pixel is in as many as its row is in, times those of its column.
    seen = _times_seen(rows, height)[:, None] * _times_seen(columns, width)  # (H, W)
    return scores.div_(seen.to(scores))


def _times_seen(spans: Sequence[slice], length: int) -> Tensor:
    """Return in how many windows each pixel of a side is (length,)."""
    times = torch.zeros(length)
    for span in spans:
        times[span] += 1
    return times
