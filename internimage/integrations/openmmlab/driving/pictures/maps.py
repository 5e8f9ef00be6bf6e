"""A frame from above: the voxels or lines of a drawing on a map with a scale."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np

from internimage.integrations.openmmlab.driving.pictures.canvas import (
    blank,
    draw_arrow_head,
    draw_line,
    heading,
    to_fixed,
    write,
)
from internimage.integrations.openmmlab.driving.pictures.colours import (
    CONNECTION,
    EGO,
    FAINT,
    GRID,
    INK,
)
from internimage.integrations.openmmlab.driving.pictures.drawing import Drawing, Region

EGO_SIZE = (4.6, 2.0)
"""Length and width of the car that marks the place of the cameras, metres."""

# Steps are of 2.5 at most, which is 15 / 6.
TICK = (1, 2, 5, 10, 20, 50)
"""Distances of the grid's lines, metres: the one of which six to fifteen fit."""


@dataclasses.dataclass(frozen=True)
class View:
    """From metres to pixels of a map.

    The car looks up the page, or to the right where the region is longer than wide.

    Args:
        region: what is shown, metres.
        width: of the map, pixels.
    """

    region: Region
    width: int

    @property
    def is_turned(self) -> bool:
        """Whether the car looks to the right."""
        x0, y0, x1, y1 = self.region
        return x1 - x0 > y1 - y0

    @property
    def scale(self) -> float:
        """Pixels a metre."""
        x0, y0, x1, y1 = self.region
        return self.width / (x1 - x0 if self.is_turned else y1 - y0)

    @property
    def height(self) -> int:
        """Of the map, pixels."""
        x0, y0, x1, y1 = self.region
        return round(self.scale * (y1 - y0 if self.is_turned else x1 - x0))

    def to_pixels(self, points: np.ndarray) -> np.ndarray:
        """Return (..., 2) pixels of (..., 2 or 3) metres."""
        x0, _, x1, y1 = self.region
        x, y = points[..., 0], points[..., 1]
        # Pixels count from the upper left corner, which is front left, or, turned, rear left.
        across, down = (x - x0, y1 - y) if self.is_turned else (y1 - y, x1 - x)
        return np.stack([across, down], axis=-1) * self.scale


def draw_map(drawing: Drawing, region: Region, name: str, *, width: int) -> np.ndarray:
    """Return a map under its name.

    Args:
        drawing: what to draw.
        region: what is shown, metres.
        name: what it is.
        width: of the result, pixels.

    Returns:
        (h, width, 3), uint8, red-green-blue.
    """
    view = View(region, width)
    picture = blank(view.height, width)
    if drawing.ground is not None:
        # Rows of the voxels are x and columns y: turned so that they are the page's.
        ground = (
            drawing.ground[:, ::-1].transpose(1, 0, 2)
            if view.is_turned
            else drawing.ground[::-1, ::-1]
        )
        # A blend of two classes might be the colour of a third.
        picture[:] = cv2.resize(ground, (width, view.height), interpolation=cv2.INTER_NEAREST)
    else:
        picture[:] = 255
        _draw_grid(picture, view)
    for line in drawing.lines:
        pixels = view.to_pixels(line.points)
        draw_line(picture, pixels, line.colour, 2)
        if line.directed:
            _draw_direction(picture, pixels, line.colour)
    # Above the lanes that they connect.
    for pair in drawing.connections:
        _draw_arc(picture, view.to_pixels(pair))
    _draw_ego(picture, view)
    # Over the car as well: what stands on a badge stands nowhere else.
    for line in drawing.lines:
        place = view.to_pixels(line.points)[len(line.points) // 2]
        for index, (text, colour) in enumerate(line.badges):
            write(
                picture,
                text,
                (place[0] + 20 * index, place[1]),
                ground=colour,
                anchor="mm",
                size=11,
            )
    _draw_scale(picture, view)
    cv2.rectangle(picture, (0, 0), (width - 1, view.height - 1), FAINT, 1)
    return np.concatenate([heading(width, name, drawing.summary), picture])


def _tick(view: View) -> int:
    x0, y0, x1, y1 = view.region
    # The last one for a region of more than 750 m.
    return next((tick for tick in TICK if max(x1 - x0, y1 - y0) / tick <= 15), TICK[-1])


def _draw_grid(picture: np.ndarray, view: View) -> None:
    """Draw lines through the multiples of a round distance from the car."""
    x0, y0, x1, y1 = view.region
    tick = _tick(view)
    # From the first multiple inside the region, so that a line goes through the car.
    for x in np.arange(np.ceil(x0 / tick) * tick, x1, tick):
        draw_line(picture, view.to_pixels(np.array([(x, y0), (x, y1)])), GRID, 1)
    for y in np.arange(np.ceil(y0 / tick) * tick, y1, tick):
        draw_line(picture, view.to_pixels(np.array([(x0, y), (x1, y)])), GRID, 1)


def _draw_direction(picture: np.ndarray, pixels: np.ndarray, colour: tuple[int, int, int]) -> None:
    """Put arrow heads on a line (n, 2): one near its middle and one at its end."""
    # A line of two points has both at one place; one of one point leads nowhere.
    for end in {len(pixels) // 2, len(pixels) - 1} - {0}:
        draw_arrow_head(picture, pixels[end], pixels[end] - pixels[end - 1], colour, 11)


def _draw_arc(picture: np.ndarray, pair: np.ndarray) -> None:
    """Draw a bent arrow between two points (2, 2): a straight one would hide in the lanes."""
    start, end = pair
    # Always to the same side of its way, so that there and back are two arcs.
    across = np.array([start[1] - end[1], end[0] - start[0]])
    share = np.linspace(0, 1, 17)[:, None]
    curve = start + share * (end - start) + share * (1 - share) * across
    draw_line(picture, curve, CONNECTION, 1)
    draw_arrow_head(picture, curve[-1], curve[-1] - curve[-3], CONNECTION, 9)


def _draw_ego(picture: np.ndarray, view: View) -> None:
    """Draw a car at the origin with an arrow head for a bonnet."""
    long, wide = EGO_SIZE
    # Shares of the size. The origin is at the rear axle, so most of the car is ahead of it.
    body = np.array([(-0.4, -0.5), (-0.4, 0.5), (0.25, 0.5), (0.6, 0.0), (0.25, -0.5)])
    outline = to_fixed(view.to_pixels(body * (long, wide)))
    cv2.fillPoly(picture, [outline], EGO, cv2.LINE_AA, 4)
    cv2.polylines(picture, [outline], True, (255, 255, 255), 1, cv2.LINE_AA, 4)


def _draw_scale(picture: np.ndarray, view: View) -> None:
    """Draw a bar of a round length in the lower right corner."""
    tick = _tick(view)
    length = round(tick * view.scale)
    right, bottom = view.width - 14, view.height - 14
    cv2.rectangle(
        picture, (right - length - 8, bottom - 26), (right + 8, bottom + 8), (255,) * 3, -1
    )
    left = right - length
    cv2.line(picture, (left, bottom), (right, bottom), INK, 2)
    for end in (left, right):
        cv2.line(picture, (end, bottom - 5), (end, bottom + 5), INK, 2)
    place = (right - length / 2, bottom - 8)
    write(picture, f"{tick} m", place, ground=(255, 255, 255), anchor="ms", size=12)
