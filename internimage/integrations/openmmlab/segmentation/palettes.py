"""Colours of classes, red, green and blue, 0-255: those of known data sets, and others.

mmseg has them with its data sets; what it has a second time under other names, without NYU and by
``eval``, is not asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import cv2
import numpy as np
from mmseg.registry import DATASETS

from internimage.colours import Colour, random_palette

PaletteName = Literal[
    "ade",
    "ade20k",
    "cityscapes",
    "cocostuff",
    "mapillary",
    "nyu",
    "pascal_context",
    "voc",
    "random",
]

DATA_SETS: dict[str, str] = {
    "ade": "ADE20KDataset",
    "ade20k": "ADE20KDataset",
    "cityscapes": "CityscapesDataset",
    "cocostuff": "COCOStuffDataset",
    "mapillary": "MapillaryDataset_v1",
    "nyu": "NYUDepthV2Dataset",
    "pascal_context": "PascalContextDataset59",
    "voc": "PascalVOCDataset",
}


def named_palette(name: PaletteName, num_classes: int) -> list[Colour]:
    """Return the colours of a data set, one a class.

    Args:
        name: of the data set, or ``random`` for as many as are needed.
        num_classes: how many there are to be at least.

    Raises:
        ValueError: the data set has fewer classes.
    """
    if name == "random":
        return random_palette(num_classes)
    colours = as_colours(DATASETS.get(DATA_SETS[name]).METAINFO["palette"])
    if len(colours) < num_classes:
        raise ValueError(
            f"expected a palette with a colour for each of {num_classes} classes, got {name} with "
            f"{len(colours)}; random has as many as are needed"
        )
    return colours


def as_colours(rows: Any) -> list[Colour]:
    """Return rows of three numbers as colours."""
    return [(int(row[0]), int(row[1]), int(row[2])) for row in rows]


def lay_colours(
    image: np.ndarray, label_map: np.ndarray, palette: Sequence[Colour], *, opacity: float
) -> np.ndarray:
    """Return an image with the colours of its classes laid over it.

    Args:
        image: (H, W, 3), uint8, blue-green-red.
        label_map: (H, W), the class of every pixel.
        palette: one colour a class, red-green-blue.
        opacity: of the colours, 0-1.

    Returns:
        (H, W, 3), uint8, blue-green-red.
    """
    # Red-green-blue to OpenCV's order, then a colour a pixel: (K, 3)[(H, W)] is (H, W, 3).
    colours = np.array(palette, np.uint8)[:, ::-1][label_map]
    return cv2.addWeighted(image, 1 - opacity, colours, opacity, 0)
