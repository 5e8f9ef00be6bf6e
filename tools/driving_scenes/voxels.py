"""A scene as a grid of classes around the car, and which of its voxels can be seen.

Shape letters: X Y Z voxels forward, to the left and up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tools.driving_scenes.cameras import Shot
from tools.driving_scenes.classes import FREE
from tools.driving_scenes.road import Points
from tools.driving_scenes.world import Scene


@dataclass(frozen=True)
class Grid:
    """Voxels around the car.

    Args:
        origin: Their least x, y and z on the car, metres.
        shape: (X, Y, Z).
        voxel: Side of one, metres.
    """

    origin: tuple[float, float, float]
    shape: tuple[int, int, int]
    voxel: float

    def centres(self) -> Points:
        """Returns the middles of the voxels, (X, Y, Z, 3), on the car."""
        axes = [
            start + self.voxel * (np.arange(count) + 0.5)
            for start, count in zip(self.origin, self.shape, strict=True)
        ]
        return np.stack(np.meshgrid(*axes, indexing="ij"), -1)

    @property
    def ground(self) -> int:
        """The layer that the ground, z = 0, runs through or is the top of."""
        # Not floor: where z = 0 lies between two layers the ground is the lower one.
        return int(np.ceil(-self.origin[2] / self.voxel)) - 1


SMALL = Grid((-16.0, -16.0, -1.6), (20, 20, 4), 1.6)
"""Coarse enough for a model that learns within minutes; the ground is the top of a layer."""
FULL = Grid((-40.0, -40.0, -1.0), (200, 200, 16), 0.4)
"""Of Occ3D-nuScenes."""


def label_voxels(scene: Scene, frame: int, grid: Grid) -> NDArray[np.uint8]:
    """Returns the classes (X, Y, Z) of a key frame: what holds a voxel's middle, or the ground."""
    points = _in_plane(scene, frame, grid)
    labels = np.full(grid.shape, FREE, dtype=np.uint8)
    # The later box wins; the ground, last, wins over what a coarse voxel holds of both.
    for box in scene.boxes(frame):
        labels[box.holds(points)] = box.thing.label
    labels[:, :, grid.ground] = scene.road.ground_class(points[:, :, grid.ground, :2])
    return labels


def visible_voxels(
    scene: Scene, frame: int, grid: Grid, shots: Sequence[Shot]
) -> NDArray[np.bool_]:
    """Returns which voxels (X, Y, Z) a camera's rays pass or hit.

    Args:
        scene: The drive.
        frame: Index of the key frame.
        grid: The voxels.
        shots: The images of the key frame.
    """
    points = _in_plane(scene, frame, grid)
    # Of the ground's voxels the middles may be below it, where no ray gets: its surface is seen.
    points[..., 2] = points[..., 2].clip(min=0)
    visible = np.zeros(grid.shape, dtype=bool)
    for shot in shots:
        u, v, depth = np.moveaxis(shot.project(points), -1, 0)
        width, height = shot.camera.size
        inside = (depth > 0.1) & (u > 0) & (u < width) & (v > 0) & (v < height)
        # Along a plane the inverse of the depth is linear in pixels, so what lies between the
        # middles of four of them is exact for the ground, however flat the rays are.
        # In the sky it is 0, a surface a million metres away: all before it is seen.
        inverse = _between(1 / shot.depth, u[inside], v[inside])
        surface = 1 / np.maximum(inverse, 1e-6)
        # A surface is seen when the voxel around it is: half a diagonal behind.
        visible[inside] |= depth[inside] <= surface + grid.voxel * np.sqrt(3) / 2
    visible[:, :, : grid.ground] = False  # nobody sees below the ground
    return visible


def _in_plane(scene: Scene, frame: int, grid: Grid) -> Points:
    pose = scene.ego_pose(scene.time(frame))
    return grid.centres() @ pose[:3, :3].T + pose[:3, 3]


def _between(values: Points, u: Points, v: Points) -> Points:
    """Returns values (H, W) of pixels at image coordinates (n,), linearly between their middles."""
    height, width = values.shape
    u, v = (u - 0.5).clip(0, width - 1), (v - 0.5).clip(0, height - 1)
    # The last pixel is the right one of a pair as well.
    left = np.minimum(u.astype(int), width - 2)
    top = np.minimum(v.astype(int), height - 2)
    x, y = u - left, v - top
    upper = values[top, left] * (1 - x) + values[top, left + 1] * x
    lower = values[top + 1, left] * (1 - x) + values[top + 1, left + 1] * x
    return upper * (1 - y) + lower * y
