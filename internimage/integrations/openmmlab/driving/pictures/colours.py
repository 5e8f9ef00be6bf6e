"""Colours of the three tasks' classes, red, green, blue, 0-255."""

from __future__ import annotations

from internimage.colours import Colour

INK = (38, 41, 46)
FAINT = (128, 133, 140)
PAPER = (250, 250, 248)
GRID = (226, 228, 230)
UNSEEN = (238, 239, 240)  # not free space's white: nothing is known, not nothing there
EGO = (222, 45, 38)

# The drawn worlds of tools/ are painted in these: another colour is another image to train on.
OCCUPANCY_COLOURS: tuple[Colour, ...] = (
    (92, 92, 98),  # others
    (201, 107, 74),  # barrier
    (226, 62, 152),  # bicycle
    (146, 84, 22),  # bus
    (37, 105, 189),  # car
    (203, 142, 46),  # construction_vehicle
    (150, 56, 160),  # motorcycle
    (214, 30, 52),  # pedestrian
    (255, 138, 20),  # traffic_cone
    (14, 112, 116),  # trailer
    (58, 170, 186),  # truck
    (150, 153, 163),  # driveable_surface
    (190, 160, 190),  # other_flat
    (221, 186, 150),  # sidewalk
    (176, 210, 120),  # terrain
    (168, 146, 118),  # manmade
    (48, 140, 68),  # vegetation
    (255, 255, 255),  # free
)
"""Of the classes of Occ3D-nuScenes in their order."""

LANE = (28, 96, 190)
CONNECTION = (240, 120, 10)

MAP_COLOURS: tuple[Colour, ...] = (
    (23, 140, 200),  # ped_crossing
    (238, 134, 16),  # divider
    (34, 139, 74),  # boundary
)
"""Of the classes of the vector map in their order."""

ATTRIBUTE_COLOURS: tuple[Colour, ...] = (
    (110, 110, 116),  # unknown
    (220, 30, 40),  # red
    (30, 160, 70),  # green
    (214, 160, 0),  # yellow
    (30, 110, 200),  # go_straight
    (20, 150, 170),  # turn_left
    (100, 80, 200),  # turn_right
    (170, 60, 20),  # no_left_turn
    (140, 30, 110),  # no_right_turn
    (90, 130, 30),  # u_turn
    (190, 60, 130),  # no_u_turn
    (70, 170, 200),  # slight_left
    (150, 120, 220),  # slight_right
)
"""Of the attributes of OpenLane-V2's traffic elements in their order."""
