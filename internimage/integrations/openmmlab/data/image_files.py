"""What is wrong with an image file, before a training reads it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import cv2
from PIL import Image

from internimage.image import load_image, upright_size
from internimage.integrations.openmmlab.data.faults import Effect

# 150 MB decoded. Below Pillow's own limit for a warning, 89 million.
MAX_PIXELS = 50_000_000

IMAGE_KINDS: Mapping[str, tuple[Effect, str]] = {
    "missing image": ("stops", "no such file"),
    "unreadable image": ("stops", "no image for OpenCV, or truncated: half of it would be grey"),
    "large image": ("noted", "over 50 million pixels, decoded in full each time"),
}


def check_image(path: Path, *, decode: bool) -> tuple[tuple[int, int] | None, str, str]:
    """Look at an image file.

    Args:
        path: the file.
        decode: whether to decode it: finds the truncated ones, takes longer. Images of more than
            ``MAX_PIXELS`` are not decoded.

    Returns:
        Its width and height, pixels, turned as its EXIF data say, or None where nobody knows; a
        key of ``IMAGE_KINDS``, empty where nothing is wrong; the example that says where and what.
    """
    if not path.is_file():
        return None, "missing image", str(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            width, height = upright_size(path)  # as a training sees it
        if width * height <= MAX_PIXELS and decode:
            load_image(path)
        # Pillow has read it; a training does so with OpenCV, which knows fewer formats.
        if not cv2.haveImageReader(str(path)):
            raise ValueError("OpenCV does not read this format")
    except (OSError, ValueError) as error:
        huge = isinstance(error.__cause__, Image.DecompressionBombError)
        kind = "large image" if huge else "unreadable image"
        return None, kind, f"{path}: {' '.join(str(error).split())}"
    if width * height > MAX_PIXELS:
        return (width, height), "large image", f"{path} is {width}x{height}"
    return (width, height), "", ""
