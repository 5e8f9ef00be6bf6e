"""What stands and moves beside a road, and the car that drives along it and looks."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tools.driving_scenes.classes import (
    BARRIER,
    BUS,
    CAR,
    COLOURS,
    MANMADE,
    PEDESTRIAN,
    TRUCK,
    VEGETATION,
)
from tools.driving_scenes.road import LANE, LEFT, RIGHT, Points, Road

SIGNAL_COLOURS = (
    (60, 60, 60),  # unknown
    (235, 20, 20),
    (20, 210, 60),
    (250, 210, 0),
    (20, 60, 200),  # go_straight
    (0, 160, 220),
    (110, 40, 220),
    (255, 120, 60),  # no_left_turn
    (230, 60, 200),
    (120, 90, 20),  # u_turn
    (150, 0, 60),
    (120, 240, 230),
    (190, 160, 250),
)
"""Of the 13 attributes of OpenLane-V2's traffic elements."""

CLEARANCE = 0.2  # metres of air under every box: the ground below is seen as ground
EGO_PLACE = -0.5 * LANE  # d of the car that looks


@dataclass(frozen=True)
class Thing:
    """A box that stands, or moves along the road.

    Args:
        name: Of the thing, within its scene.
        label: Its class in Occ3D-nuScenes.
        place: s and d at time 0, metres.
        size: Length along the road, width and height, metres.
        velocity: Of s and d, metres a second.
        bottom: Metres above the ground.
        colour: 0-255; None is that of the class.
    """

    name: str
    label: int
    place: tuple[float, float]
    size: tuple[float, float, float]
    velocity: tuple[float, float] = (0.0, 0.0)
    bottom: float = CLEARANCE
    colour: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class Box:
    """A thing at a moment: centre (3,) in metres of the world, yaw in radians."""

    thing: Thing
    centre: Points
    yaw: float

    @property
    def colour(self) -> tuple[int, int, int]:
        """Its colour, 0-255."""
        return self.thing.colour or COLOURS[self.thing.label]

    def to_box(self, points: Points, *, directions: bool = False) -> Points:
        """Returns points or directions (..., 3) of the world as the box sees them."""
        cos, sin = np.cos(self.yaw), np.sin(self.yaw)
        turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])  # of rows: the inverse turn
        return (points if directions else points - self.centre) @ turn

    def to_world(self, points: Points) -> Points:
        """Returns points (..., 3) of the box's own frame as the world sees them."""
        return points @ pose(-self.yaw, (0, 0, 0))[:3, :3] + self.centre

    def corners(self) -> Points:
        """Returns its eight corners, (8, 3), in its own frame."""
        signs = np.stack(np.meshgrid([-0.5, 0.5], [-0.5, 0.5], [-0.5, 0.5]), -1).reshape(-1, 3)
        return signs * self.thing.size

    def holds(self, points: Points) -> NDArray[np.bool_]:
        """Returns which of the points (..., 3) are inside."""
        inside = np.abs(self.to_box(points)) <= np.array(self.thing.size) / 2
        return np.logical_and.reduce(inside, axis=-1)


@dataclass(frozen=True)
class Signal:
    """A traffic element over the road: a coloured square that faces those who come forward.

    Args:
        name: Of the signal, within its scene.
        place: s and d, metres.
        bottom: Metres above the ground.
        side: Metres.
        attributes: One of the 13 of OpenLane-V2 per frame; the last one stays.
        lanes: Names of those that it governs.
    """

    name: str
    place: tuple[float, float]
    bottom: float
    side: float
    attributes: tuple[int, ...]
    lanes: tuple[str, ...]

    def attribute(self, frame: int) -> int:
        """Returns what it shows in a frame."""
        return self.attributes[min(frame, len(self.attributes) - 1)]

    def thing(self, frame: int) -> Thing:
        """Returns the square as a thing."""
        size = (0.3, self.side, self.side)
        colour = SIGNAL_COLOURS[self.attribute(frame)]
        return Thing(self.name, MANMADE, self.place, size, bottom=self.bottom, colour=colour)


@dataclass(frozen=True)
class Scene:
    """A drive: a road, what is on it, and the moments at which the car looks.

    Args:
        name: Of the scene, in its data set.
        road: Where all stands.
        base: (4, 4); pose of the road's own coordinates in the world of the data set.
        speed: Of the car that looks, metres a second.
        start: Its s at time 0.
        num_frames: Key frames.
        rate: Key frames a second.
        epoch: Time 0 in microseconds.
        things: What stands and moves.
        signals: Traffic elements.
    """

    name: str
    road: Road
    base: Points
    speed: float
    start: float
    num_frames: int
    epoch: int
    rate: float = 2.0  # as the key frames of all three data sets
    things: tuple[Thing, ...] = ()
    signals: tuple[Signal, ...] = field(default=())

    def time(self, frame: int) -> float:
        """Returns the seconds since time 0 of a key frame."""
        return frame / self.rate

    def timestamp(self, time: float) -> int:
        """Returns the microseconds of a time in seconds."""
        return self.epoch + round(time * 1e6)

    def ego_pose(self, time: float) -> Points:
        """Returns the pose (4, 4) of the car in the road's plane: x forward, y left, z up."""
        # Along the inner of two arcs s passes faster than metres do.
        s = self.start + self.speed * time / (1 - self.road.curvature * EGO_PLACE)
        x, y = self.road.to_plane((s, EGO_PLACE))
        return pose(self.road.heading(s), (x, y, 0.0))

    @property
    def yaw_rate(self) -> float:
        """Radians a second of the car's turn to the left."""
        curvature = self.road.curvature
        return self.speed * curvature / (1 - curvature * EGO_PLACE)

    def boxes(self, frame: int) -> list[Box]:
        """Returns everything that stands above the ground in a key frame."""
        time = self.time(frame)
        things = [*self.things, *(signal.thing(frame) for signal in self.signals)]
        return [place_box(thing, self.road, time) for thing in things]


def place_box(thing: Thing, road: Road, time: float) -> Box:
    """Returns a thing at a time in seconds, turned as the road is where it stands."""
    s, d = np.add(thing.place, np.multiply(thing.velocity, time))
    x, y = road.to_plane((s, d))
    centre = np.array([x, y, thing.bottom + thing.size[2] / 2])
    return Box(thing, centre, road.heading(float(s)))


def pose(yaw: float, translation: tuple[float, float, float]) -> Points:
    """Returns the pose (4, 4) of a turn to the left in radians and a translation in metres."""
    matrix = np.eye(4)
    cos, sin = np.cos(yaw), np.sin(yaw)
    matrix[:2, :2] = [[cos, -sin], [sin, cos]]
    matrix[:3, 3] = translation
    return matrix


def token(*names: object) -> str:
    """Returns 32 hexadecimal digits, the same for the same names."""
    # As long as nuScenes' tokens; md5 protects nothing here.
    return hashlib.md5("/".join(map(str, names)).encode()).hexdigest()


def city_scene(name: str, *, index: int, num_frames: int, seed: int) -> Scene:
    """Returns a drive through traffic: for occupancy.

    A long low building hides a car that drives behind it from every camera for some frames.

    Args:
        name: Of the scene.
        index: Of the scene: even ones bend to the left, odd ones to the right.
        num_frames: Key frames.
        seed: Another seed is another world.
    """
    # 1 and 2 name the kind of the world: the same seed gives different draws for both.
    generator = np.random.default_rng([seed, 1, index])
    uniform = generator.uniform
    road = Road(curvature=(1 if index % 2 == 0 else -1) / uniform(45, 60), junction=uniform(27, 31))
    things = [
        Thing("oncoming", CAR, (uniform(22, 26), 0.5 * LANE), (4.8, 2.4, 1.8), (-8.0, 0.0)),
        Thing("ahead", TRUCK, (uniform(9, 11), EGO_PLACE), (6.4, 2.6, 3.4), (uniform(5, 6), 0.0)),
        Thing(
            "beside", CAR, (uniform(-12, -9), -1.5 * LANE), (4.8, 2.4, 1.8), (uniform(8, 9), 0.0)
        ),
        Thing("parked", BUS, (uniform(10, 14), RIGHT - 1.8), (9.0, 2.8, 3.4)),
        # People are as thick as a coarse voxel, so that some middle is always in one.
        Thing("walker", PEDESTRIAN, (uniform(14, 17), RIGHT - 3.5), (2.4, 2.4, 2.0), (0.0, 2.2)),
        Thing("group", PEDESTRIAN, (uniform(2, 4), RIGHT - 3.5), (4.0, 2.4, 2.0), (1.5, 0.0)),
        Thing("crowd", PEDESTRIAN, (uniform(16, 18), LEFT + 3.5), (4.0, 2.4, 2.0), (-1.2, 0.0)),
        Thing("wall", MANMADE, (8.0, LEFT + 3.0), (13.0, 2.4, 3.6)),
        Thing("hidden", CAR, (uniform(-5, -3), LEFT + 7.5), (4.8, 2.4, 1.8), (6.0, 0.0)),
        Thing("fence", BARRIER, (uniform(-9, -7), LEFT + 1.5), (9.0, 2.0, 2.0)),
    ]
    # Every 8 m and not quite, a tree on the left; on the right a house at each second place.
    for number, s in enumerate(range(-36, 60, 8)):
        along = s + uniform(-1.5, 1.5)
        # The junction stays open.
        if abs(along - road.junction) < 8:
            continue
        if abs(along - 8) > 12:  # the wall's place is free of trees
            things.append(
                Thing(f"tree {number}", VEGETATION, (along, LEFT + uniform(4, 6)), (2.8, 2.8, 5.2))
            )
        if number % 2 == 0:
            place, size = (along, RIGHT - uniform(6.5, 8)), (6.0, 4.0, uniform(3.5, 6))
            things.append(Thing(f"house {number}", MANMADE, place, size))
    return Scene(
        name,
        road,
        # Anywhere in a town's coordinates: code that takes world axes for the ego's fails.
        base=pose(uniform(-np.pi, np.pi), (uniform(300, 900), uniform(900, 1700), 0.0)),
        speed=uniform(5, 6),
        start=0.0,
        num_frames=num_frames,
        # The summer of 2018, nuScenes'; drives are a minute apart.
        epoch=1_533_000_000_000_000 + 60_000_000 * index,
        things=tuple(things),
    )


def lane_scene(name: str, *, index: int, num_frames: int, seed: int) -> Scene:
    """Returns a drive towards a junction with signals: for lanes and maps.

    Args:
        name: Of the scene.
        index: Of the scene: even ones bend to the left, odd ones to the right.
        num_frames: Key frames.
        seed: Another seed is another world.
    """
    generator = np.random.default_rng([seed, 2, index])
    uniform = generator.uniform
    road = Road(
        curvature=(1 if index % 2 == 0 else -1) / uniform(120, 200), junction=uniform(20, 23)
    )
    far = road.junction + 6.0
    forward = ("inner", "outer")
    # By frame, numbers of OpenLane-V2's attributes: red turns green, green turns yellow and red.
    lights = (1, 1, 2, 2) if index % 2 == 0 else (2, 3, 1, 1)
    # no_left_turn and no_right_turn, or go_straight and u_turn.
    signs = (7, 8) if index % 2 == 0 else (4, 9)
    signals = (
        Signal("light inner", (far, -0.5 * LANE), 4.2, 2.4, lights, ("inner",)),
        Signal("light outer", (far, -1.5 * LANE), 4.2, 2.4, lights, ("outer",)),
        Signal("sign left", (far + 1, 0.6 * LANE), 3.6, 2.2, (signs[0],), ("inner",)),
        Signal("sign right", (far + 1, RIGHT - 1.2), 2.6, 2.2, (signs[1],), forward),
    )
    things = [
        Thing("oncoming", CAR, (uniform(40, 46), 0.5 * LANE), (4.8, 2.0, 1.6), (-7.0, 0.0)),
        Thing("ahead", CAR, (uniform(-16, -12), -1.5 * LANE), (4.8, 2.0, 1.6), (5.0, 0.0)),
    ]
    for number, s in enumerate(range(-40, 70, 15)):
        along = s + uniform(-3, 3)
        if abs(along - road.junction) > 10:
            for side, place in (("left", LEFT + 7.5), ("right", RIGHT - 7.5)):
                label = VEGETATION if uniform() < 0.5 else MANMADE
                size = (3.0, 3.0, uniform(4, 7))
                things.append(Thing(f"{side} {number}", label, (along, place), size))
    return Scene(
        name,
        road,
        base=pose(uniform(-np.pi, np.pi), (uniform(-900, 900), uniform(-900, 900), 0.0)),
        speed=uniform(3.5, 5),
        start=uniform(-2, 2),
        num_frames=num_frames,
        epoch=315_970_000_000_000 + 60_000_000 * index,
        things=tuple(things),
        signals=signals,
    )
