"""A bent road with a crossroads: where its lanes, edges and paint lie.

A place is named by road coordinates: s metres along the middle of the road, d metres to its left.
Traffic keeps to the right; two lanes lead forward (d < 0), one leads back (d > 0). A side road
crosses at ``s = junction``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tools.driving_scenes.classes import COLOURS, DRIVEABLE, PAVEMENT, TERRAIN

Points = NDArray[np.float64]

LANE = 3.5  # metres wide
RIGHT, LEFT = -2 * LANE, LANE  # d of the road's edges
SIDEWALK = 2.5  # metres wide
ENDS = (-70.0, 90.0)  # s at which the road begins and ends
SIDE_ENDS = (-45.0, 35.0)  # d of the same for the side road
STOP = 9.5  # metres before the junction's middle at which lanes of it begin
CROSSING = (-8.5, -5.5)  # metres from the junction's middle to the zebra's two ends

WHITE, YELLOW, KERB, MIDDLE = (250, 250, 250), (240, 190, 20), (70, 60, 60), (120, 130, 190)
LINE = 0.22  # metres, half the width of a painted line: what a pixel of a small image still sees


@dataclass(frozen=True)
class Lane:
    """A lane's middle, in its direction.

    Args:
        name: Of the lane, within its road.
        path: (n, 2), s and d.
        leads_to: Names of the lanes that begin where it ends.
    """

    name: str
    path: Points
    leads_to: tuple[str, ...] = ()


@dataclass(frozen=True)
class Road:
    """A road as an arc of a circle.

    Args:
        curvature: 1 / metres; above 0 it bends to the left. Not 0.
        junction: The s of the side road's middle.
    """

    curvature: float
    junction: float

    def to_plane(self, path: ArrayLike) -> Points:
        """Returns x and y, (..., 2), of road coordinates (..., 2)."""
        s, d = np.moveaxis(np.asarray(path, dtype=np.float64), -1, 0)
        # At s = 0 the road is at the origin and leads along x; the arc's centre is (0, 1 / k).
        k, turn = self.curvature, self.curvature * s
        return np.stack([np.sin(turn) * (1 / k - d), 1 / k - np.cos(turn) * (1 / k - d)], -1)

    def from_plane(self, points: ArrayLike) -> Points:
        """Returns road coordinates (..., 2) of x and y, (..., 2)."""
        x, y = np.moveaxis(np.asarray(points, dtype=np.float64), -1, 0)
        k = self.curvature
        # From the centre of the arc, mirrored for a bend to the right.
        x, y = np.sign(k) * x, np.sign(k) * (1 / k - y)
        # One to one up to half a turn of the arc, and short of its centre.
        return np.stack([np.arctan2(x, y) / k, (1 - abs(k) * np.hypot(x, y)) / k], -1)

    def heading(self, s: float) -> float:
        """Returns the direction of the road at s, radians from the x axis to the left."""
        return self.curvature * s

    def ground_class(self, points: ArrayLike) -> NDArray[np.uint8]:
        """Returns the class (...) of the ground at x and y, (..., 2)."""
        s, d = np.moveaxis(self.from_plane(points), -1, 0)
        side = np.abs(s - self.junction)
        classes = np.full(s.shape, TERRAIN, dtype=np.uint8)
        # From the outside in, each over the one before: where roads cross the asphalt wins.
        near = (d > RIGHT - SIDEWALK) & (d < LEFT + SIDEWALK)
        classes[near | (side < LANE + SIDEWALK)] = PAVEMENT
        classes[((d > RIGHT) & (d < LEFT)) | (side < LANE)] = DRIVEABLE
        return classes

    def ground_colour(self, points: Points, *, paint: bool) -> NDArray[np.uint8]:
        """Returns the colour (..., 3), 0-255, of the ground at x and y, (..., 2).

        Args:
            points: Places in the plane.
            paint: Whether lines, kerbs and zebras are drawn; else each class has one colour.
        """
        palette = np.array(COLOURS, dtype=np.uint8)
        colours = palette[self.ground_class(points)]
        if not paint:
            return colours
        s, d = np.moveaxis(self.from_plane(points), -1, 0)
        side = s - self.junction
        road = (d > RIGHT) & (d < LEFT)
        # No lines on the junction, nor under the zebra before it.
        open_road = ~((side > -STOP) & (side < -CROSSING[1]))
        for place in (-1.5 * LANE, -0.5 * LANE, 0.5 * LANE):
            colours[open_road & (np.abs(d - place) < LINE / 2)] = MIDDLE
        for place, colour in ((-LANE, WHITE), (0.0, YELLOW)):
            colours[open_road & (np.abs(d - place) < LINE)] = colour
        colours[~road & (np.abs(side) < LINE)] = YELLOW
        # Kerbs are open where the roads meet.
        beside = np.abs(side) > LANE
        for place in (RIGHT, LEFT):
            colours[beside & (np.abs(d - place) < LINE)] = KERB
        colours[~road & (np.abs(np.abs(side) - LANE) < LINE)] = KERB
        # Last, over all lines: bars of 0.75 m along the road, as wide gaps.
        zebra = road & (side > CROSSING[0]) & (side < CROSSING[1])
        colours[zebra & ((d - RIGHT) % 1.5 < 0.75)] = WHITE
        return colours

    def lanes(self) -> list[Lane]:
        """Returns the lanes and the ways of the junction between them."""
        begin, end = self.junction - STOP, self.junction - CROSSING[1]
        inner, outer, back = -0.5 * LANE, -1.5 * LANE, 0.5 * LANE
        # Who turns keeps to the right of the side road: that is s below its middle for the way out
        # to the right, and above it for the way out to the left.
        right, left = self.junction - 0.5 * LANE, self.junction + 0.5 * LANE
        out_right, out_left = (right, RIGHT - 2.0), (left, LEFT + 2.0)
        return [
            Lane("inner", _line((ENDS[0], inner), (begin, inner)), ("inner_on", "turn_left")),
            Lane("outer", _line((ENDS[0], outer), (begin, outer)), ("outer_on", "turn_right")),
            Lane("back", _line((ENDS[1], back), (end, back)), ("back_on",)),
            Lane("inner_on", _line((begin, inner), (end, inner)), ("inner_far",)),
            Lane("outer_on", _line((begin, outer), (end, outer)), ("outer_far",)),
            Lane("back_on", _line((end, back), (begin, back)), ("back_far",)),
            Lane("inner_far", _line((end, inner), (ENDS[1], inner))),
            Lane("outer_far", _line((end, outer), (ENDS[1], outer))),
            Lane("back_far", _line((begin, back), (ENDS[0], back))),
            Lane("turn_right", _curve((begin, outer), (right, outer), out_right), ("out_right",)),
            Lane("turn_left", _curve((begin, inner), (left, inner), out_left), ("out_left",)),
            Lane("out_right", _line(out_right, (right, SIDE_ENDS[0]))),
            Lane("out_left", _line(out_left, (left, SIDE_ENDS[1]))),
        ]

    def dividers(self) -> list[Points]:
        """Returns the lines between lanes, each (n, 2), s and d."""
        begin, end = self.junction - STOP, self.junction - CROSSING[1]
        lines = []
        for place in (-LANE, 0.0):
            lines += [
                _line((ENDS[0], place), (begin, place)),
                _line((end, place), (ENDS[1], place)),
            ]
        middle = self.junction
        lines.append(_line((middle, RIGHT), (middle, SIDE_ENDS[0])))
        return [*lines, _line((middle, LEFT), (middle, SIDE_ENDS[1]))]

    def boundaries(self) -> list[Points]:
        """Returns the road's edges, each (n, 2), s and d: one at each corner of the junction."""
        corners = []
        # From the far end along the road to the corner, and out along the side road.
        for along, far in ((-LANE, ENDS[0]), (LANE, ENDS[1])):
            for edge, out in ((RIGHT, SIDE_ENDS[0]), (LEFT, SIDE_ENDS[1])):
                s = self.junction + along
                corner = (s, edge)
                corners.append(
                    np.concatenate([_line((far, edge), corner), _line(corner, (s, out))])
                )
        return corners

    def crossings(self) -> list[Points]:
        """Returns the outlines of the zebras, each (n, 2), s and d, closed."""
        near, far = (self.junction + offset for offset in CROSSING)
        ring = [(near, RIGHT), (far, RIGHT), (far, LEFT), (near, LEFT), (near, RIGHT)]
        return [np.concatenate([_line(a, b) for a, b in zip(ring[:-1], ring[1:], strict=True)])]


def _line(start: tuple[float, float], end: tuple[float, float]) -> Points:
    return _sample(lambda t: (1 - t) * np.array(start) + t * np.array(end), np.subtract(end, start))


def _curve(
    start: tuple[float, float], corner: tuple[float, float], end: tuple[float, float]
) -> Points:
    """Returns a parabola that leaves towards the corner and arrives from it."""
    a, b, c = (np.array(point) for point in (start, corner, end))
    return _sample(lambda t: (1 - t) ** 2 * a + 2 * t * (1 - t) * b + t**2 * c, c - a)


def _sample(place: Callable[[Points], Points], extent: Points) -> Points:
    """Returns points of a curve over 0-1, some quarter of a metre apart."""
    # By the straight distance in road coordinates: a curve has somewhat longer steps.
    steps = max(2, int(np.ceil(np.hypot(extent[0], extent[1]) / 0.25)) + 1)
    return place(np.linspace(0, 1, steps, dtype=np.float64)[:, None])
