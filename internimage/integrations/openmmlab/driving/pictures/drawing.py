"""What a picture is made of, in metres of the ego frame, and its way into a camera.

The ego frame: x forward, y left, z up.

Shape legend: n points, F faces, X Y Z cells of a voxel grid.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from internimage.colours import Colour

# Not 0: the division by the depth makes of a point in the image plane one at infinity.
NEAR = 0.2
"""What is nearer to a camera than this is cut off, metres."""

Region = tuple[float, float, float, float]
"""x0, y0, x1, y1 of what a map shows, metres."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line:
    """A line on the ground or above it.

    Args:
        points: (n, 3), metres.
        colour: of the line.
        directed: whether arrow heads show where it leads.
        badges: short texts with their colours, written beside its middle.
    """

    points: np.ndarray
    colour: Colour
    directed: bool = False
    badges: tuple[tuple[str, Colour], ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Box:
    """A box in a camera.

    Args:
        camera: index of the camera.
        corners: left, top, right, bottom in pixels of the network's input.
        colour: of the outline.
        text: what stands above it.
    """

    camera: int
    corners: tuple[float, float, float, float]
    colour: Colour
    text: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Faces:
    """The visible sides of voxels.

    Args:
        corners: (F, 4, 3), metres, in the order of the outline.
        normals: (F, 3), unit vectors that point outwards.
        colours: (F, 3), uint8, red-green-blue.
    """

    corners: np.ndarray
    normals: np.ndarray
    colours: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drawing:
    """All that is drawn of a frame's truth, or of what a model says.

    Args:
        summary: what there is, in a few words.
        lines: of lanes or map elements.
        connections: pairs of points (2, 3), metres: an arc leads from the first to the second.
        boxes: in the cameras.
        faces: of occupied voxels; None where the task has none.
        ground: (X, Y, 3), uint8, red-green-blue: the voxels from above; None likewise.
    """

    summary: str
    lines: tuple[Line, ...] = ()
    connections: tuple[np.ndarray, ...] = ()
    boxes: tuple[Box, ...] = ()
    faces: Faces | None = None
    ground: np.ndarray | None = None


def to_image(points: np.ndarray, ego2img: np.ndarray) -> np.ndarray:
    """Take points into a camera.

    Args:
        points: (..., 3), metres.
        ego2img: (4, 4), metres to (u d, v d, d, 1) with u, v in pixels and the depth d in metres.

    Returns:
        (..., 3): u d, v d, d.
    """
    return points @ ego2img[:3, :3].T + ego2img[:3, 3]


def cut_near(outline: np.ndarray, *, closed: bool) -> list[np.ndarray]:
    """Cut off what is behind a camera, and divide by the depth.

    Args:
        outline: (n, 3), u d, v d, d of a line's points.
        closed: whether the last point is joined to the first; the outline is convex then.

    Returns:
        The pieces in front of the camera, each (m, 2) in pixels.
    """
    # Sutherland and Hodgman's clipping at one plane, before the division: behind the camera
    # that mirrors.
    ring = np.concatenate([outline, outline[:1]]) if closed else outline
    pieces: list[list[np.ndarray]] = [[]]
    for start, end in zip(ring[:-1], ring[1:], strict=True):
        if start[2] >= NEAR:
            pieces[-1].append(start)
        if (start[2] >= NEAR) != (end[2] >= NEAR):
            # A straight line stays one before the division, so the share is that of the depths.
            share = (NEAR - start[2]) / (end[2] - start[2])
            pieces[-1].append(start + share * (end - start))
            # A line may come back as another piece; a convex outline stays one.
            if start[2] >= NEAR and not closed:
                pieces.append([])
    if not closed and len(ring) and ring[-1][2] >= NEAR:
        pieces[-1].append(ring[-1])
    # Two points are no area, one point no line.
    least = 3 if closed else 2
    found = [np.stack(piece) for piece in pieces if len(piece) >= least]
    return [piece[:, :2] / piece[:, 2:] for piece in found]


def voxel_faces(
    semantics: np.ndarray,
    colours: np.ndarray,
    free: int,
    origin: np.ndarray,
    cell: np.ndarray,
) -> Faces:
    """Return the sides at which occupied voxels meet free ones.

    Args:
        semantics: (X, Y, Z), class of each voxel.
        colours: (classes, 3), uint8.
        free: the class of voxels with nothing in them.
        origin: (3,), least corner of the grid, metres.
        cell: (3,), sides of a voxel, metres.
    """
    # A border of free voxels: what ends at the edge of the grid has a side there.
    occupied = np.pad(semantics != free, 1)
    corners, normals, shades = [], [], []
    for axis in range(3):
        for sign in (-1, 1):
            # The neighbour at +-1 along the axis; what np.roll brings round is the free border.
            beside = np.roll(occupied, -sign, axis)
            index = np.argwhere((occupied & ~beside)[1:-1, 1:-1, 1:-1])  # (n, 3)
            others = [other for other in range(3) if other != axis]
            square = np.zeros((4, 3))
            square[:, others] = [(0, 0), (1, 0), (1, 1), (0, 1)]
            square[:, axis] = (sign + 1) / 2
            # (n, 1, 3) + (4, 3): the square around its place in the grid, then metres.
            corners.append(origin + (index[:, None] + square) * cell)
            normal = np.zeros(3)
            normal[axis] = sign
            normals.append(np.broadcast_to(normal, (len(index), 3)))
            # Light from above and a little from the front: the sides of a block differ.
            light = (0.82, 0.7, 1.0)[axis] if sign > 0 else (0.76, 0.64, 0.5)[axis]
            shades.append(colours[semantics[tuple(index.T)]] * light)
    return Faces(
        corners=np.concatenate(corners),
        normals=np.concatenate(normals),
        colours=np.concatenate(shades).astype(np.uint8),
    )


def seen_from_above(semantics: np.ndarray, colours: np.ndarray, free: int) -> np.ndarray:
    """Return the colour of the highest occupied voxel of each column, (X, Y, 3), uint8.

    Higher ones are a little darker, so that walls stand out from the ground. Columns with nothing
    in them have the colour of ``free``.
    """
    height = semantics.shape[2]
    occupied = semantics != free
    # argmax finds the first True; of a column without any it says 0, the top layer, which is free.
    top = height - 1 - occupied[:, :, ::-1].argmax(axis=2)
    classes = np.take_along_axis(semantics, top[:, :, None], axis=2)[:, :, 0]
    shade = 1 - 0.25 * top / max(1, height - 1)
    picture = colours[classes] * np.where(occupied.any(axis=2), shade, 1)[:, :, None]
    return picture.round().astype(np.uint8)
