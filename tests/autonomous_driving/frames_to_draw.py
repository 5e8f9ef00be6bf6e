"""Frames with known contents, for the tests of the pictures: cameras around a car, no model."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from internimage.integrations.openmmlab.driving.sample import DrivingSample

HEIGHT, WIDTH = 96, 160
EYE = (1.5, 0.0, 1.6)
"""Of all cameras, metres."""

NUSCENES = {
    "CAM_FRONT": 0,
    "CAM_FRONT_RIGHT": -55,
    "CAM_FRONT_LEFT": 55,
    "CAM_BACK": 180,
    "CAM_BACK_LEFT": 110,
    "CAM_BACK_RIGHT": -110,
}
ARGOVERSE = {
    "ring_front_center": 0,
    "ring_front_left": 45,
    "ring_front_right": -45,
    "ring_rear_left": 155,
    "ring_rear_right": -155,
    "ring_side_left": 100,
    "ring_side_right": -100,
}
"""Degrees to the left at which the cameras look."""

EXTENT = (-20.0, -20.0, -1.0, 20.0, 20.0, 5.4)
LONG = (-30.0, -15.0, -2.0, 30.0, 15.0, 2.0)


def matrix_of(degrees: float) -> np.ndarray:
    """Return ego2img (4, 4) of a camera that looks to the horizon."""
    yaw = np.radians(degrees)
    ahead = np.array([np.cos(yaw), np.sin(yaw), 0])
    right = np.array([np.sin(yaw), -np.cos(yaw), 0])
    rotation = np.stack([right, [0, 0, -1], ahead])
    focal = np.array([[110.0, 0, WIDTH / 2], [0, 110, HEIGHT / 2], [0, 0, 1]])
    matrix = np.eye(4)
    matrix[:3, :3] = focal @ rotation
    matrix[:3, 3] = -focal @ rotation @ EYE
    return matrix


def frame(cameras: dict[str, float], **fields: Any) -> tuple[Tensor, DrivingSample]:
    """Return images (N, 3, H, W) of sky over ground, and a sample with these data fields."""
    image = torch.full((3, HEIGHT, WIDTH), 200, dtype=torch.uint8)
    image[:, HEIGHT // 2 :] = 120
    image[0, : HEIGHT // 2] = 235  # blue: channels are blue, green, red
    factors = np.ones((len(cameras), 2))
    if "ring_front_center" in cameras:
        # Its files stand on end: 72 x 96 pixels, say, stretched to the others' width.
        factors[0] = (WIDTH / 72, 1)
    sample = DrivingSample(
        metainfo={
            "token": "1531883530449377",
            "scene": "scene-0001",
            "timestamp": 1531883530449377,
            "cameras": tuple(cameras),
            "ego2img": np.stack([matrix_of(angle) for angle in cameras.values()])[None],
            "scale_factors": factors,
        },
        **fields,
    )
    return image.expand(len(cameras), -1, -1, -1).clone(), sample


def street() -> np.ndarray:
    """Return voxels (100, 100, 16) of 0.4 m: a street, pavements, a house, a car, a tree."""
    voxels = np.full((100, 100, 16), 17, np.uint8)
    voxels[:, 38:62, 2] = 11
    voxels[:, 30:38, 2], voxels[:, 62:70, 2] = 13, 13
    voxels[:, :30, 2], voxels[:, 70:, 2] = 14, 14
    voxels[60:80, 72:92, 3:14] = 15
    voxels[70:81, 42:47, 3:7] = 4
    voxels[78:84, 20:26, 8:14], voxels[80:82, 22:24, 3:8] = 16, 16
    voxels[20:22, 66:68, 3:8] = 7
    return voxels


def lanes() -> dict[str, Any]:
    """Return three lanes, of which the first leads into the two others, and two elements."""
    x = np.linspace(-15, 5, 11)
    first = np.stack([x, 0 * x, 0 * x - 0.3], 1)
    x = np.linspace(5, 28, 11)
    ahead = np.stack([x, 0 * x, 0 * x - 0.3], 1)
    left = np.stack([5 + 10 * np.sin((x - 5) / 16), 10 - 10 * np.cos((x - 5) / 16), 0 * x - 0.3], 1)
    lane_lane = np.zeros((3, 3))
    lane_lane[0, 1:] = 1
    lane_element = np.zeros((3, 2))
    lane_element[1, 0] = lane_element[2, 1] = lane_element[2, 0] = 1
    return {
        "lanes": [first, ahead, left],
        "boxes": np.array([(30.0, 20.0, 36.0, 36.0), (50.0, 18.0, 58.0, 26.0)]),
        "attributes": np.array([2, 5]),
        "topology_lclc": lane_lane,
        "topology_lcte": lane_element,
    }


def polylines() -> dict[str, Any]:
    """Return a crossing, a divider and two boundaries."""
    x = np.linspace(-30, 30, 31)
    crossing = np.array([(8, -6), (11, -6), (11, 6), (8, 6), (8, -6)], float)
    lines = [crossing, *(np.stack([x, y + 0.001 * x**2], 1) for y in (0.0, -7.0, 7.0))]
    return {"polylines": lines, "labels": np.array([0, 1, 2, 2])}
