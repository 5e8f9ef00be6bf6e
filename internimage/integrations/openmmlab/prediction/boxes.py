"""Detections drawn on their picture, in the colours that mmdet has for classes.

mmdet's own visualizer makes a figure of every frame and blends it once a mask: six seconds for
twenty masks at 1920x1080, where this takes a fraction of one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal

import cv2
import matplotlib
import numpy as np
from mmdet.visualization.palette import get_palette
from mmengine.structures import InstanceData
from PIL import Image, ImageDraw, ImageFont

PaletteName = Literal["coco", "voc", "citys", "random"]
"""Sets of colours that mmdet knows by name, one colour a class."""

Palette = PaletteName | list[tuple[int, int, int]]

OPACITY = 0.45
"""Of a mask over the image, 0-1."""

LEAST_TEXT = 11
"""Height of the letters in a small image, pixels."""


# mmdet's own can take its place when it draws on arrays, without a figure a frame.
class Painter:
    """Draws boxes, masks, names and scores.

    Args:
        class_names: one a class, or none at all.
        palette: a name, or one colour (red, green, blue; 0-255) a class.
    """

    def __init__(self, class_names: Sequence[str], palette: Palette) -> None:
        self._class_names = tuple(class_names)
        self._palette = palette

    def draw(self, image: np.ndarray, instances: InstanceData) -> np.ndarray:
        """Return the picture with all the instances on it, the best on top.

        Args:
            image: (H, W, 3), uint8, blue-green-red.
            instances: ``bboxes``, ``labels``, ``scores`` and perhaps ``masks`` of this image.

        Returns:
            (H, W, 3), uint8, blue-green-red.
        """
        if len(instances) == 0:
            return image.copy()
        height, width = image.shape[:2]
        # 21 pixels at 1920x1080: as large on a screen whatever the image's size.
        text_size = max(LEAST_TEXT, round(math.sqrt(height * width) / 70))
        line = max(1, round(text_size / 8))
        order = instances.scores.argsort().tolist()
        labels = instances.labels.tolist()
        # As many colours as are needed: of mmdet's random ones the first are always the same.
        palette = get_palette(self._palette, max(labels) + 1)
        colours = [tuple(int(value) for value in palette[label]) for label in labels]
        rgb = np.ascontiguousarray(image[..., ::-1])  # OpenCV draws on no view that runs backwards
        if "masks" in instances:
            masks = instances.masks.numpy().astype(np.uint8)  # (n, H, W)
            for index in order:
                _blend(rgb, masks[index], colours[index], line)
        picture = Image.fromarray(rgb)
        pen = ImageDraw.Draw(picture)
        for index in order:
            pen.rectangle(_corners(instances.bboxes[index]), outline=colours[index], width=line)
        # Names last, so that no box's line goes through one.
        for index in order:
            text = f"{self._name(labels[index])} {100 * float(instances.scores[index]):.0f}"
            left, top, _, _ = _corners(instances.bboxes[index])
            _write(pen, text, (left, top), colours[index], text_size)
        return np.ascontiguousarray(np.asarray(picture)[..., ::-1])

    def _name(self, label: int) -> str:
        return self._class_names[label] if self._class_names else f"class {label}"


def _corners(bbox: Sequence[float]) -> tuple[int, int, int, int]:
    left, top, right, bottom = (round(float(value)) for value in bbox)
    return left, top, right, bottom


def _blend(rgb: np.ndarray, mask: np.ndarray, colour: tuple[int, ...], line: int) -> None:
    """Lay a mask (H, W) over the picture in place: its inside through, its outline opaque."""
    left, top, width, height = cv2.boundingRect(mask)
    if width == 0:
        return
    # A view of the mask's own rectangle, where mmdet's blends the whole image for each mask.
    part = np.s_[top : top + height, left : left + width]
    inside = mask[part].astype(bool)
    region = rgb[part]
    region[inside] = (1 - OPACITY) * region[inside] + OPACITY * np.array(colour)
    outlines, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(rgb, outlines, -1, colour, line)


def _write(
    pen: ImageDraw.ImageDraw,
    text: str,
    corner: tuple[int, int],
    colour: tuple[int, ...],
    size: int,
) -> None:
    """Write on a ground of the box's colour: above its corner, or below where there is no room."""
    font = _font(size)
    _, _, right, bottom = pen.textbbox((0, 0), text, font=font)
    width, height = math.ceil(right) + size // 4, math.ceil(bottom) + size // 4
    picture = pen.im.size
    left = max(0, min(corner[0], picture[0] - width))
    top = corner[1] - height if corner[1] >= height else corner[1]
    pen.rectangle((left, top, left + width, top + height), fill=colour)
    # About the luma of ITU-R BT.601, 0-255.
    bright = 0.3 * colour[0] + 0.6 * colour[1] + 0.1 * colour[2] > 140
    ink = (0, 0, 0) if bright else (255, 255, 255)
    pen.text((left + size // 8, top + size // 8), text, fill=ink, font=font)


@lru_cache(maxsize=8)
def _font(size: int) -> ImageFont.FreeTypeFont:
    # The one that matplotlib brings along has Greek, Cyrillic and more; Pillow's has Latin alone.
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), size)
