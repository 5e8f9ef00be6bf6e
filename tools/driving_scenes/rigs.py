"""The cameras of the three data sets' cars, with their names and order, in small images."""

from __future__ import annotations

from tools.driving_scenes.cameras import Camera

CITY_SIZE = (160, 96)  # pixels; nuScenes has 1600 x 900
RING_SIZE = (132, 100)  # Argoverse 2 has 2048 x 1550, and its front camera stands upright

# Mountings and focal lengths near those of nuScenes' cars, where a camera is triggered when the
# LiDAR's beam crosses the middle of its view: hence the delays.
_CITY = (
    # name, degrees to the left, metres on the car, share of the width, seconds after the LiDAR
    ("CAM_FRONT", 0, (1.70, 0.02, 1.51), 0.79, 0.008),
    ("CAM_FRONT_RIGHT", -56, (1.55, -0.49, 1.50), 0.79, 0.016),
    ("CAM_FRONT_LEFT", 55, (1.52, 0.49, 1.51), 0.79, -0.004),
    ("CAM_BACK", 180, (0.03, 0.00, 1.57), 0.51, -0.022),
    ("CAM_BACK_LEFT", 108, (1.04, 0.48, 1.59), 0.79, -0.012),
    ("CAM_BACK_RIGHT", -110, (1.01, -0.48, 1.56), 0.79, 0.024),
)
# In the order of `CAMERAS` of OpenLane-V2: the front camera, which has the traffic elements, first.
_RING = (
    ("ring_front_center", 0, (1.63, 0.00, 1.40)),
    ("ring_front_left", 45, (1.55, 0.18, 1.39)),
    ("ring_front_right", -45, (1.55, -0.18, 1.39)),
    ("ring_rear_left", 153, (1.10, 0.12, 1.39)),
    ("ring_rear_right", -153, (1.10, -0.12, 1.39)),
    ("ring_side_left", 99, (1.30, 0.18, 1.39)),
    ("ring_side_right", -99, (1.30, -0.18, 1.39)),
)


def city_rig() -> tuple[Camera, ...]:
    """Returns the six cameras of nuScenes."""
    return tuple(
        Camera(name, yaw, place, CITY_SIZE, focal * CITY_SIZE[0], pitch=3.0, delay=delay)
        for name, yaw, place, focal, delay in _CITY
    )


def ring_rig() -> tuple[Camera, ...]:
    """Returns the seven cameras of Argoverse 2, which expose together."""
    width, height = RING_SIZE
    return tuple(
        Camera(
            name,
            yaw,
            place,
            (height, width) if name == "ring_front_center" else (width, height),
            0.83 * width,
        )
        for name, yaw, place in _RING
    )
