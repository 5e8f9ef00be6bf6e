"""What the key-point detector and the polyline generator learn of a true polyline.

The rules are those of VectorMapNet (arXiv 2206.08920, sections 3.2 to 3.4). P polylines, K
vertices of one, L tokens of one: 2 K and the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray

from internimage.integrations.openmmlab.driving.vector_map.canvas import END, MapCanvas

Array = NDArray[Any]

# Douglas and Peucker's, section 3.1: vertices where a line bends teach far better than evenly
# spaced ones (appendix D.1). This and the next two numbers are the original's.
TOLERANCE = 0.2
"""Metres that a polyline may move when it is told in fewer vertices."""

MIN_BOX = 0.02
"""Fraction of the canvas that a box is wide and high at least."""

_BOX_MARGIN = 0.1  # cells that a box keeps from the canvas' edge, where a sigmoid cannot reach


class ElementTarget(NamedTuple):
    """What is learnt of one polyline."""

    label: int
    box: Array
    """(4,) x1, y1, x2, y2 in cells, not rounded: the two key points."""

    box_tokens: Array
    """(4,) int64, the box in whole cells; without the 1 that a token has more."""

    tokens: Array
    """(L,) int64: x and y of every vertex in turn, and the end."""

    weights: Array
    """(L,) of the tokens in the loss."""


def simplify_polyline(points: Array, canvas: MapCanvas) -> Iterator[Array]:
    """Give the parts of a polyline (K, 2 or 3) that lie in the range, in fewer vertices (K', 2).

    Args:
        points: in metres.
        canvas: says the range; what leaves it is cut off.
    """
    # Heights are dropped: the map is flat.
    line = shapely.LineString(np.asarray(points, np.float64)[:, :2]).simplify(TOLERANCE)
    # Cutting turns a line that lies on the edge by rounding; most lines need none.
    if not shapely.box(*canvas.range).covers(line):
        line = shapely.clip_by_rect(line, *canvas.range)
    for part in shapely.get_parts(line):  # what only touches the range leaves a point
        if isinstance(part, shapely.LineString) and not part.is_empty:
            yield shapely.get_coordinates(part)


def key_points(fractions: Array) -> Array:
    """Return the box (4,) of a polyline (K, 2), both as fractions of the canvas.

    A box that is too thin is widened by what its smaller side lacks; in all directions, so that
    the line stays in its middle. The round ends of shapely's buffer, a thousandth of a cell short,
    are the original's.
    """
    line = shapely.LineString(fractions)
    x1, y1, x2, y2 = line.bounds
    # The box of a straight line along an axis has no area.
    missing = MIN_BOX - min(x2 - x1, y2 - y1)
    bounds = line.buffer(missing / 2).bounds if missing > 0 else line.bounds
    return np.clip(np.array(bounds), 0.0, 1.0)


def token_weights(fractions: Array, *, by_length: bool) -> Array:
    """Return the weights (2 K + 1,) of the tokens of a polyline (K, 2).

    Args:
        fractions: vertices as fractions of the canvas.
        by_length: weigh a vertex by the edges that meet in it, and the end by 1 / 2 K; otherwise
            all tokens weigh the same. Boundaries have long straight edges, of which every vertex
            matters.
    """
    edges = np.linalg.norm(np.diff(fractions, axis=0), axis=1)
    if not by_length or not edges.any():
        return np.full(2 * len(fractions) + 1, 1 / (2 * len(fractions) + 1))
    vertices = np.append(edges, edges[-1])  # the ends have one edge each
    vertices[1:-1] = (edges[:-1] + edges[1:]) / 2
    vertices /= vertices.sum()
    # x and y share a vertex' weight, so that these sum to 1, and the end comes on top.
    return np.append(np.repeat(vertices / 2, 2), 1 / (2 * len(fractions)))


def encode_elements(
    polylines: Sequence[Array],
    labels: Sequence[int] | Array,
    canvas: MapCanvas,
    *,
    labels_by_length: Sequence[int] = (2,),
) -> list[ElementTarget]:
    """Return the targets of a map's polylines.

    Args:
        polylines: (K, 2 or 3) each, in metres.
        labels: their classes (P,).
        canvas: the canvas of the model.
        labels_by_length: the classes whose tokens are weighed by the length of edges: boundaries.
    """
    # (4,): boxes are in cells, shares times 200 x 100; tokens are indices, times 199 x 99.
    edge = np.tile(np.array(canvas.cells, np.float64), 2)
    targets = []
    for points, label in zip(polylines, labels, strict=True):
        for line in simplify_polyline(points, canvas):
            fractions = canvas.to_fractions(line)
            box = key_points(fractions)
            targets.append(
                ElementTarget(
                    label=int(label),
                    box=np.clip(box * edge, _BOX_MARGIN, edge - _BOX_MARGIN),
                    # Rounded down, as the vertices are.
                    box_tokens=(box * np.tile(canvas.scale, 2)).astype(np.int64),
                    tokens=np.append(canvas.to_tokens(fractions).reshape(-1), END),
                    weights=token_weights(fractions, by_length=label in labels_by_length),
                )
            )
    return targets
