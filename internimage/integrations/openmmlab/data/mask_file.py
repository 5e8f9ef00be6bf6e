"""One mask file: its size, its labels, and what is not as a mask should be."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

NUM_LABELS = 256
"""What 8 bits hold; mmseg reads no more."""

IGNORED = 255
"""The label that is not learned, where nothing else is said."""

LABELS = ("1", "L", "P")
"""Pillow's modes of 8 bits and less. Of "P" the numbers are read, and the colours are not."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskFile:
    """What a mask's file holds.

    Args:
        size: width and height, pixels.
        counts: (256,), int64; pixels of each label. None where the file has no labels.
        faults: kinds of fault with the rest of a sentence that begins with the file's name.
    """

    size: tuple[int, int]
    counts: np.ndarray | None
    faults: tuple[tuple[str, str], ...] = ()


def read_mask(path: Path) -> MaskFile:
    """Decode a mask and count its labels.

    Raises:
        ValueError: it is no image, or truncated.
        OSError: it cannot be read.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as file:
                # A copy of what Pillow decodes, as mmseg reads it: no turn by EXIF data.
                mode, size, is_jpeg = file.mode, file.size, file.format in ("JPEG", "MPO")
                values = np.asarray(file)
    except UnidentifiedImageError as error:
        raise ValueError("no image that Pillow can read") from error
    except OSError as error:
        # With a number it is the system's, such as no permission; without, Pillow's: truncated.
        if error.errno is not None:
            raise
        raise ValueError(str(error)) from error
    except Exception as error:  # each of Pillow's plugins raises what its parser happens to raise
        raise ValueError(f"{type(error).__name__}: {error}") from error
    if is_jpeg:
        return MaskFile(size=size, counts=None, faults=(("lossy mask", ""),))
    if mode in LABELS:
        counts = np.bincount(values.astype(np.uint8).ravel(), minlength=NUM_LABELS)
        return MaskFile(size=size, counts=counts)
    if mode.startswith("I"):  # "I;16" of PNGs, "I;16B" of TIFFs, "I" of 32 bits
        return _of_wide(size, values)
    if mode == "F":
        return MaskFile(size=size, counts=None, faults=(("float mask", ""),))
    return MaskFile(size=size, counts=None, faults=(("colour mask", f" is {mode}"),))


def _of_wide(size: tuple[int, int], values: np.ndarray) -> MaskFile:
    """Return what a mask of 16 or 32 bits holds: right as long as 8 would do."""
    least, most = int(values.min()), int(values.max())
    if 0 <= least and most < NUM_LABELS:
        counts = np.bincount(values.astype(np.uint8).ravel(), minlength=NUM_LABELS)
        return MaskFile(size=size, counts=counts)
    worst = least if least < 0 else most
    return MaskFile(size=size, counts=None, faults=(("label over 255", f" has {worst}"),))
