"""Resizing in NumPy that equals what the models were trained and tested with.

Shape legend: H W of what is given, Ho Wo of what is returned, in pixels; C channels or classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_ONE = 2048
"""OpenCV's weights of 8-bit images are whole numbers: this one is 1."""


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return an image as OpenCV's ``resize`` with ``INTER_LINEAR`` makes it, bit by bit.

    Args:
        image: (H, W, C), uint8.
        size: Ho, Wo.

    Returns:
        (Ho, Wo, C), uint8.
    """
    height, width = image.shape[:2]
    if (height, width) == tuple(size):
        return image
    if (height, width) == (2 * size[0], 2 * size[1]):
        # OpenCV takes the mean of each four pixels here, as its INTER_AREA does.
        quarters = [image[row::2, column::2] for row in (0, 1) for column in (0, 1)]
        total = np.stack(quarters).sum(axis=0, dtype=np.uint16)
        return ((total + 2) // 4).astype(np.uint8)
    rows, row_weights = _whole_weights(height, size[0], cut=False)
    columns, column_weights = _whole_weights(width, size[1], cut=True)  # (2, Wo) each
    left, right = column_weights[:, None, :, None]  # (1, Wo, 1)
    # Only rows that are looked at.
    used, place = np.unique(rows, return_inverse=True)
    upper, lower = place.reshape(rows.shape)
    # The shifts are those of OpenCV's VResizeLinear: two weights of 11 bits are taken off by 4, 16
    # and 2 bits, so that what lies between the two passes fits into 16.
    x = image[used].astype(np.int32)
    x = (x[:, columns[0]] * left + x[:, columns[1]] * right) >> 4  # (rows, Wo, C)
    above, below = row_weights[:, :, None, None]  # (Ho, 1, 1)
    y = ((x[upper] * above) >> 16) + ((x[lower] * below) >> 16)
    return ((y + 2) >> 2).clip(0, 255).astype(np.uint8)


def size_within(
    size: tuple[int, int], scale: Sequence[int], limits: Sequence[int | None] | None = None
) -> tuple[int, int]:
    """Return the largest size of the same ratio of sides that is within a scale, as mmcv rounds it.

    Args:
        size: H, W.
        scale: the longest and the shortest side allowed.
        limits: the largest height and width allowed, None for one that may be any.

    Returns:
        Ho, Wo, each at least 1.
    """
    height, width = size
    # The scale has no orientation: its long side bounds the image's long one, whichever that is.
    factor = min(max(scale) / max(size), min(scale) / min(size))
    for limit, side in zip(limits or (), size, strict=limits is not None):
        if limit is not None:
            factor = min(factor, limit / side)
    return max(int(height * factor + 0.5), 1), max(int(width * factor + 0.5), 1)


def resize_maps(maps: np.ndarray, size: tuple[int, int], rows: slice = slice(None)) -> np.ndarray:
    """Return maps as PyTorch's bilinear interpolation without aligned corners makes them.

    Args:
        maps: (C, H, W), float32.
        size: Ho, Wo.
        rows: those to return of the Ho.

    Returns:
        (C, rows, Wo), float32.
    """
    if maps.shape[1:] == tuple(size):
        return maps[:, rows]
    (upper, lower), (above, below) = (each[:, rows] for each in _weights(maps.shape[1], size[0]))
    (left, right), (near, far) = _weights(maps.shape[2], size[1])  # (Wo,) each
    first = upper[0]
    x = maps[:, first : lower[-1] + 1]  # only what these rows are made of
    x = x[:, :, left] * near + x[:, :, right] * far  # (C, rows needed, Wo)
    found = x[:, upper - first] * above[:, None]  # (C, rows, Wo)
    found += x[:, lower - first] * below[:, None]
    return found


def _weights(length: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return for each pixel of a side the two it lies between, (2, size), and their weights."""
    # PyTorch's ratio is a float32; its product and difference are rounded once, together.
    ratio = float(np.float32(length / size))
    # Left of the first centre PyTorch has the first pixel alone; beyond the last, so does `second`.
    position = np.maximum(((np.arange(size) + 0.5) * ratio - 0.5).astype(np.float32), 0)
    first = np.minimum(position.astype(np.int64), length - 1)
    second = np.minimum(first + 1, length - 1)
    share = np.clip(position - first.astype(np.float32), 0, 1).astype(np.float32)
    return np.stack([first, second]), np.stack([np.float32(1) - share, share])


def _whole_weights(length: int, size: int, *, cut: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return what :func:`_weights` does, with OpenCV's rounding and weights out of 2048.

    Args:
        length: of a side of what is given.
        size: of that side of what is returned.
        cut: whether a pixel beyond the last centre has that one's colour with a weight of 1, as
            columns have it, or with two weights that are each rounded, as rows.
    """
    # Not length / size: OpenCV divides twice, and rounds twice.
    ratio = 1.0 / (size / length)
    position = ((np.arange(size) + 0.5) * ratio - 0.5).astype(np.float32)
    first = np.floor(position).astype(np.int64)
    share = position - first.astype(np.float32)
    if cut:
        share[(first < 0) | (first >= length - 1)] = 0
    weights = np.rint(np.stack([np.float32(1) - share, share]) * np.float32(_ONE))
    pixels = np.stack([first, first + 1]).clip(0, length - 1)
    return pixels, weights.astype(np.int32)
