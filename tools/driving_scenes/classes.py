"""The classes of Occ3D-nuScenes that the drawn world is made of, and their colours."""

from internimage.integrations.openmmlab.driving.data.occ3d import FREE, OCCUPANCY_CLASSES
from internimage.integrations.openmmlab.driving.pictures.colours import OCCUPANCY_COLOURS

BARRIER, BUS, CAR, PEDESTRIAN, TRUCK, DRIVEABLE, PAVEMENT, TERRAIN, MANMADE, VEGETATION = (
    OCCUPANCY_CLASSES.index(name)
    for name in (
        *("barrier", "bus", "car", "pedestrian", "truck", "driveable_surface", "sidewalk"),
        *("terrain", "manmade", "vegetation"),
    )
)
COLOURS = OCCUPANCY_COLOURS
"""Red, green, blue, 0-255, of each class: the world looks like the pictures of its truth."""

__all__ = [
    "BARRIER",
    "BUS",
    "CAR",
    "COLOURS",
    "DRIVEABLE",
    "FREE",
    "MANMADE",
    "PAVEMENT",
    "PEDESTRIAN",
    "TERRAIN",
    "TRUCK",
    "VEGETATION",
]
