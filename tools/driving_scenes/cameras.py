"""Pinhole cameras that see a scene, ray by ray.

A camera's own frame has x to the right, y down and z along its view. Pixel (column, row) covers
the image coordinates column to column + 1 and row to row + 1; its ray goes through the middle.

Shape letters: H W an image's height and width.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tools.driving_scenes.road import Points, Road
from tools.driving_scenes.world import Box, Scene

SKY = (196, 220, 240)
GROUND, NOTHING = -1, -2  # what a pixel shows when it is no box
FACES = (0.9, 0.8, 1.0)  # brightness of a box's sides across, along the road, and of its top
QUALITY = (
    95  # of JPEG: without subsampled colours a pixel keeps its class's colour within some steps
)


@dataclass(frozen=True)
class Camera:
    """A camera on the car.

    Args:
        name: Of the camera.
        yaw: Degrees to the left of the car's x axis.
        position: x, y, z on the car, metres.
        size: Width and height, pixels.
        focal: Focal length, pixels.
        pitch: Degrees that it looks down.
        delay: Seconds from the key frame to its exposure.
    """

    name: str
    yaw: float
    position: tuple[float, float, float]
    size: tuple[int, int]
    focal: float
    pitch: float = 0.0
    delay: float = 0.0

    @property
    def intrinsic(self) -> Points:
        """Its matrix (3, 3), pixels."""
        width, height = self.size
        return np.array([[self.focal, 0, width / 2], [0, self.focal, height / 2], [0, 0, 1]])

    @property
    def mounting(self) -> Points:
        """Its pose (4, 4) on the car."""
        # First the pitch about the car's y axis, then the yaw about its z axis.
        yaw, pitch = np.radians(self.yaw), np.radians(self.pitch)
        cos, sin = np.cos(yaw), np.sin(yaw)
        turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
        cos, sin = np.cos(pitch), np.sin(pitch)
        nod = np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])
        matrix = np.eye(4)
        # The columns are the camera's right, down and forward in a frame x forward, y left, z up.
        matrix[:3, :3] = turn @ nod @ np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0]])
        matrix[:3, 3] = self.position
        return matrix


@dataclass(frozen=True)
class Shot:
    """An image and what is behind it.

    Args:
        pixels: (H, W, 3), RGB, 0-255.
        depth: (H, W), metres along the view; infinite in the sky.
        owner: (H, W); index of the box, :data:`GROUND` or :data:`NOTHING`.
        camera: Who took it.
        pose: (4, 4); the camera in the road's plane.
    """

    pixels: NDArray[np.uint8]
    depth: Points
    owner: NDArray[np.int64]
    camera: Camera
    pose: Points

    def project(self, points: Points) -> Points:
        """Returns u, v in pixels and the depth in metres, (..., 3), of points of the plane."""
        view = np.linalg.inv(self.pose)
        seen = (points @ view[:3, :3].T + view[:3, 3]) @ self.camera.intrinsic.T
        depth = seen[..., 2:]
        # Behind the camera u and v come out as 0; whoever asks looks at the depth.
        return np.concatenate([seen[..., :2] / np.where(depth > 1e-6, depth, np.inf), depth], -1)

    def save(self, path: Path) -> None:
        """Writes a JPEG; its folder is made."""
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(self.pixels).save(path, quality=QUALITY, subsampling=0)


def take(scene: Scene, frame: int, camera: Camera, *, paint: bool) -> Shot:
    """Returns what a camera sees around a key frame.

    The car moves on until the camera's own exposure; everything else stands as in the key frame,
    so that the frame's annotations hold for all of its images.

    Args:
        scene: The drive.
        frame: Index of the key frame.
        camera: Who looks.
        paint: Whether the ground has lines, or one colour a class.
    """
    pose = scene.ego_pose(scene.time(frame) + camera.delay) @ camera.mounting
    width, height = camera.size
    rows, columns = np.mgrid[:height, :width] + 0.5
    pixels = np.stack([columns, rows, np.ones_like(rows)], -1)
    # The third number of a ray is 1 in the camera: lengths along it are depths.
    rays = pixels @ np.linalg.inv(camera.intrinsic).T @ pose[:3, :3].T
    origin = pose[:3, 3]
    colours, depth, owner = _see_ground(scene.road, origin, rays, paint=paint)
    for index, box in enumerate(scene.boxes(frame)):
        entry, face = _hit(box, origin, rays)
        # A depth buffer: the order of the boxes does not matter.
        nearer = entry < depth
        depth[nearer], owner[nearer] = entry[nearer], index
        shade = np.array(FACES)[face[nearer], None]
        colours[nearer] = np.round(shade * np.array(box.colour)).astype(np.uint8)
    return Shot(colours, depth, owner, camera, pose)


def _see_ground(
    road: Road, origin: Points, rays: Points, *, paint: bool
) -> tuple[NDArray[np.uint8], Points, NDArray[np.int64]]:
    shape = rays.shape[:2]
    colours = np.zeros((*shape, 3), dtype=np.uint8) + np.array(SKY, dtype=np.uint8)
    depth, owner = np.full(shape, np.inf), np.full(shape, NOTHING)
    # The ground is the plane z = 0, without an end; the rays of all other pixels meet the sky.
    down = rays[..., 2] < 0
    reach = -origin[2] / rays[down, 2]
    places = origin[:2] + reach[:, None] * rays[down, :2]
    colours[down] = road.ground_colour(places, paint=paint)
    depth[down], owner[down] = reach, GROUND
    return colours, depth, owner


def _hit(box: Box, origin: Points, rays: Points) -> tuple[Points, NDArray[np.int64]]:
    """Returns the depth at which rays enter a box, infinite if not, and the axis of that face."""
    start = box.to_box(origin)
    directions = box.to_box(rays, directions=True)
    half = np.array(box.thing.size) / 2
    # The slab method: a ray is inside from its last entry to its first exit over the three axes.
    # Parallel to a side it divides by 0, and infinities compare rightly.
    with np.errstate(divide="ignore", invalid="ignore"):
        ends = (np.stack([-half, half])[:, None, None] - start) / directions
    near, far = ends.min(0), ends.max(0)
    entry, leave = near.max(-1), far.min(-1)
    # A camera inside a box does not see it: its entry is behind.
    return np.where((entry < leave) & (entry > 0), entry, np.inf), near.argmax(-1)
