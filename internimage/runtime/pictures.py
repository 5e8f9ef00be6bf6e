"""Answers drawn on their image, with NumPy and Pillow alone.

Shape legend: H W image size in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from internimage.answers import Detection
from internimage.colours import Colour

# Both as in the pictures of `internimage detect`.
OPACITY = 0.45
"""Of a mask over the image, 0-1."""

LEAST_TEXT = 11
"""Height of the letters in a small image, pixels."""


def lay_colours(
    image: np.ndarray, label_map: np.ndarray, palette: Sequence[Colour], *, opacity: float = 0.5
) -> np.ndarray:
    """Return an image with the colours of its classes laid over it.

    Args:
        image: (H, W, 3), uint8, red-green-blue.
        label_map: (H, W), the class of every pixel.
        palette: one colour a class.
        opacity: of the colours, 0-1.

    Returns:
        (H, W, 3), uint8, red-green-blue.
    """
    # There are 256 values a channel: two tables of products, looked up, are the whole arithmetic.
    shares = np.arange(256, dtype=np.float32)
    under, over = shares * np.float32(1 - opacity), shares * np.float32(opacity)
    colours = np.array(palette, np.uint8)
    picture = np.empty_like(image)
    for channel in range(3):  # three arrays of floats at a time, not nine
        laid = under[image[..., channel]] + over[colours[:, channel]][label_map]
        picture[..., channel] = np.rint(laid)
    return picture


def draw_detections(
    image: np.ndarray,
    found: Sequence[Detection],
    masks: Sequence[np.ndarray],
    palette: Sequence[Colour],
) -> np.ndarray:
    """Return the image with all detections on it, the best on top.

    Args:
        image: (H, W, 3), uint8, red-green-blue.
        found: the detections, best first.
        masks: of each detection (H, W), bool; none of a detector without masks.
        palette: one colour a class.

    Returns:
        (H, W, 3), uint8, red-green-blue.
    """
    picture = image.copy()
    # Both grow with the picture: 11 pixels of a photo of 4000 would be too small to read.
    text_size = max(LEAST_TEXT, round(math.sqrt(image.shape[0] * image.shape[1]) / 70))
    line = max(1, round(text_size / 8))
    # Masks, then boxes, then names, each from worst to best: no mask hides a name.
    for one, mask in reversed(list(zip(found, masks, strict=False))):
        _blend(picture, mask, palette[one.label], line)
    canvas = Image.fromarray(picture)
    pen = ImageDraw.Draw(canvas)
    for one in reversed(found):
        box = [round(value) for value in one.bbox]
        pen.rectangle(box, outline=palette[one.label], width=line)
    for one in reversed(found):
        name = one.class_name or f"class {one.label}"
        corner = (round(one.bbox[0]), round(one.bbox[1]))
        _write(pen, f"{name} {100 * one.score:.0f}", corner, palette[one.label], text_size)
    return np.asarray(canvas)


def _blend(picture: np.ndarray, mask: np.ndarray, colour: Colour, line: int) -> None:
    """Lay a mask (H, W) over the picture in place: its inside through, its outline opaque."""
    # Worn off by a pixel a turn; with zeros around, an edge of the image is an edge of the mask.
    inner = np.pad(mask, 1)  # (H + 2, W + 2)
    for _ in range(line):
        inner[1:-1, 1:-1] &= inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:]
    outline = mask & ~inner[1:-1, 1:-1]
    picture[mask] = (1 - OPACITY) * picture[mask] + OPACITY * np.array(colour)
    picture[outline] = colour


def _write(
    pen: ImageDraw.ImageDraw, text: str, corner: tuple[int, int], colour: Colour, size: int
) -> None:
    """Write on a ground of the box's colour: above its corner, or below where there is no room."""
    font = ImageFont.load_default(size)
    _, _, right, bottom = pen.textbbox((0, 0), text, font=font)
    width, height = math.ceil(right) + size // 4, math.ceil(bottom) + size // 4
    left = max(0, min(corner[0], pen.im.size[0] - width))
    top = corner[1] - height if corner[1] >= height else corner[1]
    pen.rectangle((left, top, left + width, top + height), fill=colour)
    # How bright red, green and blue look, after Rec. 601.
    bright = 0.3 * colour[0] + 0.6 * colour[1] + 0.1 * colour[2] > 140
    ink = (0, 0, 0) if bright else (255, 255, 255)
    pen.text((left + size // 8, top + size // 8), text, fill=ink, font=font)
