"""Masks of instances: from 28 x 28 probabilities to the pixels of an image, and to text.

Shape legend: H W image size in pixels, h w of a mask as the model gives it.
"""

from __future__ import annotations

import math

import numpy as np

_BITS = 5
"""Of a number in one letter of COCO's code; the sixth says that there are more."""


def paste_mask(
    mask: np.ndarray, box: np.ndarray, size: tuple[int, int], threshold: float
) -> np.ndarray:
    """Return the pixels of an image that are in a mask, as mmdet pastes it.

    Args:
        mask: (h, w), float32, probabilities within the box.
        box: left, top, right, bottom in pixels of the image.
        size: H, W.
        threshold: least probability.

    Returns:
        (H, W), bool.
    """
    pasted = np.zeros(size, dtype=bool)
    left, top, right, bottom = (float(value) for value in box)
    # The box and a pixel around it, as mmdet's _do_paste_mask() cuts it; the rest stays empty.
    first_row, last_row = max(math.floor(top) - 1, 0), min(math.ceil(bottom) + 1, size[0])
    first_column, last_column = max(math.floor(left) - 1, 0), min(math.ceil(right) + 1, size[1])
    if first_row >= last_row or first_column >= last_column:
        return pasted
    rows = _samples(mask.shape[0], box[1], box[3], first_row, last_row)
    columns = _samples(mask.shape[1], box[0], box[2], first_column, last_column)
    # Bilinear sampling is a product of one side's weights and the other's.
    found = rows @ mask @ columns.T  # (rows, h) @ (h, w) @ (w, columns)
    pasted[first_row:last_row, first_column:last_column] = found >= threshold
    return pasted


def _samples(length: int, start: float, end: float, first: int, last: int) -> np.ndarray:
    """Return the weights (pixels, length) of a mask's side at the centres of an image's pixels.

    Between two cells the weights are linear; beyond the mask there are zeros.

    Args:
        length: cells of the mask.
        start: where the mask begins, pixels.
        end: where it ends.
        first: the first pixel.
        last: the one behind the last.
    """
    centres = np.arange(first, last, dtype=np.float32) + np.float32(0.5)
    with np.errstate(divide="ignore", invalid="ignore"):
        place = (centres - np.float32(start)) / (np.float32(end) - np.float32(start))
    place = np.where(np.isfinite(place), place * 2 - 1, 0)  # of a box without extent: its middle
    # -1 and 1 are the outer edges of the border cells, as in grid_sample without aligned corners.
    position = ((place + 1) * length - 1) / 2
    near = 1 - np.abs(position[:, None] - np.arange(length, dtype=np.float32))
    return near.clip(0, None).astype(np.float32)


def encode_mask(mask: np.ndarray) -> str:
    """Return COCO's compressed run-length code of a mask (H, W), bool.

    Runs go down the columns and begin with those outside; from the fourth on, a number is the
    difference to the run before the last.
    """
    flat = mask.ravel(order="F")  # (W * H,)
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    borders = np.concatenate([[0], changes, [flat.size]])
    runs = np.diff(borders).tolist()
    if flat.size and flat[0]:
        runs = [0, *runs]
    # `i > 2` and not `i > 1`: so rleToString() of pycocotools' maskApi.c has it.
    numbers = [run - runs[i - 2] if i > 2 else run for i, run in enumerate(runs)]
    return "".join(map(_letters, numbers))


def _letters(number: int) -> str:
    text = ""
    while True:
        part = number & (2**_BITS - 1)
        number >>= _BITS
        # The highest bit of the last part is the sign.
        is_last = number == (-1 if part & 2 ** (_BITS - 1) else 0)
        # From "0" on: six bits end at "o", all of them printable.
        text += chr(48 + part + (0 if is_last else 2**_BITS))
        if is_last:
            return text
