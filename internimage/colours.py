"""Colours of classes that have none of their own."""

from __future__ import annotations

import colorsys

Colour = tuple[int, int, int]
"""Red, green, blue, 0-255."""

_GOLDEN = 0.618034
"""Of a turn of the colour wheel: its multiples never come near each other."""


def random_palette(num_classes: int) -> list[Colour]:
    """Return colours that are easily told apart, the same ones each time."""
    rows = []
    for index in range(num_classes):
        # Steps of 3 and of 4: twelve pairs go by before one comes back, at another hue.
        hue, saturation = index * _GOLDEN % 1, (0.95, 0.6, 0.8)[index % 3]
        value = (0.95, 0.8, 0.6, 0.45)[index % 4]
        red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
        rows.append((round(255 * red), round(255 * green), round(255 * blue)))
    return rows
