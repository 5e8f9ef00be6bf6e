"""The views of all cameras in one picture, with what a model says drawn into them.

Shape legend: N cameras, H W pixels of an input image, h w pixels of a view on the page.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import cv2
import numpy as np

from internimage.colours import Colour
from internimage.integrations.openmmlab.driving.pictures.canvas import (
    SHIFT,
    blank,
    draw_arrow_head,
    draw_line,
    to_fixed,
    write,
)
from internimage.integrations.openmmlab.driving.pictures.colours import INK
from internimage.integrations.openmmlab.driving.pictures.drawing import (
    NEAR,
    Drawing,
    Faces,
    cut_near,
    to_image,
)

OPACITY = 0.55
"""Of voxels over the image, 0-1."""

LEAST_EDGED = 10
"""Size of a voxel's side from which it has an edge, pixels: smaller ones would be nothing else."""

GAP = 6
"""Between views, pixels."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """Where a camera's view is on the page, pixels."""

    camera: int
    left: int
    top: int
    width: int
    height: int


def draw_cameras(
    images: np.ndarray,
    cameras: Sequence[str],
    ego2img: np.ndarray,
    scale_factors: np.ndarray,
    drawing: Drawing,
    *,
    width: int,
) -> np.ndarray:
    """Return all views, those of the left side on the left, those to the front at the top.

    Args:
        images: (N, H, W, 3), uint8, red-green-blue, as the model gets them but for normalisation.
        cameras: N names.
        ego2img: (N, 4, 4), ego metres to (u d, v d, d, 1), pixels of ``images``.
        scale_factors: (N, 2), x and y, pixels of ``images`` a pixel of the files: views get back
            the proportions of the files.
        drawing: what to draw into them.
        width: of the result, pixels.

    Returns:
        (h, width, 3), uint8, red-green-blue.
    """
    height_in, width_in = images.shape[1:3]
    # A model's input may be squeezed: Argoverse 2's upright front camera lies in the others' size.
    aspects = [width_in / height_in * y / x for x, y in scale_factors]
    cells = arrange(cameras, aspects, width)
    page = blank(max(cell.top + cell.height for cell in cells), width)
    for cell in cells:
        view = cv2.resize(
            images[cell.camera],
            (cell.width, cell.height),
            interpolation=cv2.INTER_AREA if cell.width < width_in else cv2.INTER_CUBIC,
        )
        # The view's pixels instead of the input's: rows 0 and 1 of the matrix hold u d and v d.
        scale = np.array([cell.width / width_in, cell.height / height_in, 1, 1])
        matrix = scale[:, None] * ego2img[cell.camera]
        _draw_view(view, matrix, drawing, cell.camera, scale[:2])
        write(view, cameras[cell.camera], (8, 8), ground=INK, size=13)
        page[cell.top : cell.top + cell.height, cell.left : cell.left + cell.width] = view
    return page


def arrange(cameras: Sequence[str], aspects: Sequence[float], width: int) -> list[Cell]:
    """Place the views in three columns as they are around the car.

    Args:
        cameras: names; those with "left" or "right" go to that side, those with "front" up, those
            with "back" or "rear" down. Without such names they are taken in turn.
        aspects: width over height of each view.
        width: of all together, pixels.
    """
    names = [name.lower() for name in cameras]
    sides = [0 if "left" in name else 2 if "right" in name else 1 for name in names]
    if set(sides) == {1}:
        sides = [index % 3 for index in range(len(names))]
    # Front, side, rear of a column from the top down; equal ones in the rig's order.
    ranks = [
        (0 if "front" in name else 2 if "back" in name or "rear" in name else 1, index)
        for index, name in enumerate(names)
    ]
    columns = [
        sorted((i for i, side in enumerate(sides) if side == column), key=ranks.__getitem__)
        for column in range(3)
    ]
    columns = [column for column in columns if column]
    # All columns are of one height h: a view has (h - gaps) / n of it, and its aspect times that
    # is its width; all widths and the gaps between are to be `width`.
    counts = [len(column) for column in columns]
    widest = [max(aspects[camera] for camera in column) for column in columns]
    free = width - GAP * (len(columns) - 1)
    # The sum over the columns of a (h - GAP (n - 1)) / n is `free`; `total` is h of it.
    lost = sum(a * GAP * (n - 1) / n for a, n in zip(widest, counts, strict=True))
    total = (free + lost) / sum(a / n for a, n in zip(widest, counts, strict=True))
    cells, left = [], 0.0
    for column, aspect, count in zip(columns, widest, counts, strict=True):
        height = (total - GAP * (count - 1)) / count
        for row, camera in enumerate(column):
            # One that is narrower than its column stands in the middle of it.
            own = aspects[camera] * height
            offset = left + (aspect * height - own) / 2
            top = row * (height + GAP)
            cells.append(Cell(camera, int(offset), int(top), int(own), int(height)))
        left += aspect * height + GAP
    return cells


def _draw_view(
    view: np.ndarray, ego2img: np.ndarray, drawing: Drawing, camera: int, scale: np.ndarray
) -> None:
    # From the bottom up: voxels are see-through and would tint whatever is below them.
    if drawing.faces is not None:
        _draw_faces(view, ego2img, drawing.faces)
    for line in drawing.lines:
        pieces = cut_near(to_image(line.points, ego2img), closed=False)
        for piece in pieces:
            draw_line(view, piece, line.colour, 2, edged=True)
        if line.directed and pieces and len(pieces[-1]) > 1:
            tip, before = pieces[-1][-1], pieces[-1][-2]
            draw_arrow_head(view, tip, tip - before, line.colour, 11)
    for box in drawing.boxes:
        if box.camera != camera:
            continue
        # A box is in pixels of the input and knows no metres, so only its own camera shows it.
        left, top, right, bottom = np.array(box.corners) * [*scale, *scale]
        outline = np.array(
            [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
        )
        draw_line(view, outline, box.colour, 2, edged=True)
        write(view, box.text, (left, top - 4), ground=box.colour, anchor="ld", size=12)


def _draw_faces(view: np.ndarray, ego2img: np.ndarray, faces: Faces) -> None:
    """Draw voxels from far to near, half through."""
    height, width = view.shape[:2]
    # M x + t = 0: where the camera stands.
    eye = -np.linalg.solve(ego2img[:3, :3], ego2img[:3, 3])
    # Of a closed block half the sides look away. Any corner will do: all four are in the plane.
    towards = ((eye - faces.corners[:, 0]) * faces.normals).sum(axis=1) > 0
    places, colours = faces.corners[towards], faces.colours[towards]
    corners = to_image(places, ego2img)  # (F, 4, 3)
    depths = corners[..., 2]
    # Clamped, so that corners behind the camera divide by no zero; `whole` says which are right.
    pixels = corners[..., :2] / np.maximum(depths, NEAR)[..., None]
    beside = (pixels.max(axis=1) < 0) | (pixels.min(axis=1) > (width, height))
    # Of those that the image plane cuts, the pixels are none: they are cut and drawn in any case.
    whole = np.asarray(depths.min(axis=1) >= NEAR)
    chosen = np.flatnonzero((depths.max(axis=1) >= NEAR) & ~(whole & beside.any(axis=1)))
    # The painter's algorithm, far to near, instead of a depth buffer, which OpenCV has not.
    distances = np.linalg.norm(places[chosen].mean(axis=1) - eye, axis=1)
    order = chosen[distances.argsort()[::-1]]
    outlines = to_fixed(pixels)
    sizes = np.ptp(pixels, axis=1).max(axis=1)
    # Opaque on a layer of its own, which is laid over the photograph once: face by face, what is
    # behind would shine through.
    layer = view.copy()
    for index in order:
        red, green, blue = colours[index].tolist()  # OpenCV refuses NumPy's uint8
        if whole[index]:
            _fill(layer, outlines[index], (red, green, blue), edged=sizes[index] > LEAST_EDGED)
        else:
            for piece in cut_near(corners[index], closed=True):
                _fill(layer, to_fixed(piece), (red, green, blue), edged=True)
    cv2.addWeighted(layer, OPACITY, view, 1 - OPACITY, 0, dst=view)


def _fill(layer: np.ndarray, outline: np.ndarray, colour: Colour, *, edged: bool) -> None:
    cv2.fillConvexPoly(layer, outline, colour, cv2.LINE_AA, SHIFT)
    if edged:
        edge = tuple(0.7 * value for value in colour)
        cv2.polylines(layer, [outline], True, edge, 1, cv2.LINE_AA, SHIFT)
