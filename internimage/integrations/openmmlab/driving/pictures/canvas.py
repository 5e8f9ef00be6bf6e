"""Paper, letters and legends: what all pictures of driving share.

Pictures are (H, W, 3) uint8, red-green-blue.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from internimage.colours import Colour
from internimage.integrations.openmmlab.driving.pictures.colours import FAINT, INK, PAPER

MARGIN = 14
"""Around everything, pixels."""

TEXT, TITLE = 15, 21
"""Heights of letters, pixels."""

SHIFT = 4
"""OpenCV draws between pixels: coordinates are given in 1/16 of one."""

Key = tuple[str, Colour, Literal["area", "line", "arrow", "arc"]]
"""An entry of a legend: its name, its colour, what it looks like."""


def blank(height: int, width: int) -> np.ndarray:
    """Return empty paper."""
    return np.full((height, width, 3), PAPER, np.uint8)


def stack(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Put pictures of one width below each other, with a margin around."""
    width = pictures[0].shape[1] + 2 * MARGIN
    rows = [blank(MARGIN, width)]
    for picture in pictures:
        row = blank(picture.shape[0] + MARGIN, width)
        row[: picture.shape[0], MARGIN:-MARGIN] = picture
        rows.append(row)
    return np.concatenate(rows)


def title(width: int, text: str, detail: str) -> np.ndarray:
    """Return a line with a title on the left and a detail on the right."""
    picture, pen = _pen(width, TITLE + 8)
    pen.text((0, 0), text, fill=INK, font=_font(TITLE, bold=True))
    pen.text((width, TITLE + 2), detail, fill=FAINT, font=_font(TEXT), anchor="rs")
    return np.asarray(picture)


def heading(width: int, text: str, detail: str) -> np.ndarray:
    """Return a smaller line above a part of the picture: what it is, what there is in it."""
    picture, pen = _pen(width, TEXT + 8)
    pen.text((0, 1), text, fill=INK, font=_font(TEXT, bold=True))
    pen.text((width, 1), detail, fill=FAINT, font=_font(TEXT), anchor="ra")
    return np.asarray(picture)


def legend(width: int, keys: Sequence[Key]) -> np.ndarray:
    """Return what the colours mean, in as many rows as are needed."""
    # First where everything goes, for the height of the picture depends on it.
    font, row = _font(TEXT), TEXT + 10
    places, left, top = [], 0, 0
    for name, _, _ in keys:
        # Up to 30 the sample of the colour, from 38 on the name, and 18 to the next entry.
        length = 40 + round(font.getlength(name)) + 18
        # A name that is wider than the page has a row of its own.
        if left and left + length > width:
            left, top = 0, top + row
        places.append((left, top))
        left += length
    picture, pen = _pen(width, top + row)
    for (name, colour, kind), (left, top) in zip(keys, places, strict=True):
        middle = top + row // 2
        if kind == "area":
            box = (left, middle - 7, left + 30, middle + 7)
            pen.rectangle(box, fill=colour, outline=FAINT)
        elif kind == "arc":
            pen.arc((left, middle - 8, left + 30, middle + 16), 180, 360, fill=colour, width=2)
        else:
            pen.line((left, middle, left + 30, middle), fill=colour, width=3)
        if kind == "arrow":
            head = [(left + 31, middle), (left + 21, middle - 6), (left + 21, middle + 6)]
            pen.polygon(head, fill=colour)
        pen.text((left + 38, middle), name, fill=INK, font=font, anchor="lm")
    return np.asarray(picture)


def to_fixed(points: np.ndarray) -> np.ndarray:
    """Return pixels (..., 2) as OpenCV takes them: int32, 1/16 of a pixel.

    A coordinate of 0 is the edge of the picture; OpenCV's 0 is the middle of the first pixel.
    """
    # A point just in front of a camera is a million pixels away; beyond ten an int32 overflows.
    return np.round((np.clip(points, -1e7, 1e7) - 0.5) * 2**SHIFT).astype(np.int32)


def draw_line(
    picture: np.ndarray, points: np.ndarray, colour: Colour, width: int, *, edged: bool = False
) -> None:
    """Draw a line in place.

    Args:
        picture: (H, W, 3).
        points: (n, 2), pixels.
        colour: of the line.
        width: pixels.
        edged: whether a thin white edge lifts it off a photograph.
    """
    fixed = to_fixed(points)
    if edged:
        # Any colour of a class may be that of the road below it.
        cv2.polylines(picture, [fixed], False, (255, 255, 255), width + 2, cv2.LINE_AA, SHIFT)
    cv2.polylines(picture, [fixed], False, colour, width, cv2.LINE_AA, SHIFT)


def draw_arrow_head(
    picture: np.ndarray, tip: np.ndarray, direction: np.ndarray, colour: Colour, size: float
) -> None:
    """Draw the head of an arrow in place; ``tip`` (2,) pixels, ``direction`` (2,) of any size."""
    length = float(np.hypot(*direction))
    # Predicted lanes may end in a point twice, which leads nowhere.
    if length < 1e-6:
        return
    along = direction / length * size
    across = 0.5 * np.array([-along[1], along[0]])
    head = np.stack([tip, tip - along + across, tip - along - across])
    cv2.fillConvexPoly(picture, to_fixed(head), colour, cv2.LINE_AA, SHIFT)


def write(
    picture: np.ndarray,
    text: str,
    place: tuple[float, float],
    *,
    ground: Colour,
    anchor: str = "la",
    size: int = TEXT,
) -> None:
    """Write on a ground of its own, in place, within the picture.

    Args:
        picture: (H, W, 3).
        text: what to write.
        place: where, pixels: x, y.
        ground: colour under the letters, which are black or white.
        anchor: which point of the text is there, in Pillow's two letters.
        size: height of the letters, pixels.
    """
    font = _font(size, bold=True)
    left, top, right, bottom = font.getbbox(text, anchor=anchor)
    box = [place[0] + left - 4, place[1] + top - 3, place[0] + right + 4, place[1] + bottom + 3]
    height, width = picture.shape[:2]
    # What is named at the edge of a view is to be read as well.
    move_x = max(0, -box[0]) - max(0, box[2] - (width - 1))
    move_y = max(0, -box[1]) - max(0, box[3] - (height - 1))
    # Pillow's letters, for OpenCV has none of a font; it writes on a copy, hence the last line.
    image = Image.fromarray(picture)
    pen = ImageDraw.Draw(image)
    moved = (box[0] + move_x, box[1] + move_y, box[2] + move_x, box[3] + move_y)
    pen.rounded_rectangle(moved, radius=4, fill=ground)
    # The eye takes most of the brightness from green (ITU-R BT.601, rounded).
    bright = 0.3 * ground[0] + 0.6 * ground[1] + 0.1 * ground[2] > 150
    ink = INK if bright else (255, 255, 255)
    pen.text((place[0] + move_x, place[1] + move_y), text, fill=ink, font=font, anchor=anchor)
    picture[:] = np.asarray(image)


def _pen(width: int, height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    picture = Image.new("RGB", (width, height), PAPER)
    return picture, ImageDraw.Draw(picture)


# More than the sizes in use, so that no font is read twice.
@lru_cache(maxsize=8)
def _font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    # The font that comes with matplotlib: the same letters on every machine.
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts/ttf", name), size)
