"""Lanes, lines and outlines of a road, as the car has them around it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import shapely

from tools.driving_scenes.road import Points
from tools.driving_scenes.world import Scene

LANE_RANGE = (-50.0, -25.0, 50.0, 25.0)  # x and y on the car, metres: OpenLane-V2's
MAP_RANGE = (-30.0, -15.0, 30.0, 15.0)  # of the vector map
SHORTEST = 2.0  # metres of a line in range that count


def to_car(scene: Scene, frame: int, path: Points) -> Points:
    """Returns road coordinates (n, 2) as points (n, 3) on the car in a key frame, metres."""
    # By way of the road's plane: into the world of `scene.base` and back would cancel.
    ego = np.linalg.inv(scene.ego_pose(scene.time(frame)))
    plane = scene.road.to_plane(path)
    points = np.concatenate([plane, np.zeros((len(plane), 1))], 1)
    return points @ ego[:3, :3].T + ego[:3, 3]


def pieces_in(points: Points, limits: tuple[float, float, float, float]) -> list[Points]:
    """Returns the runs (n, 3) of points within x0, y0, x1, y1, that are long enough."""
    inside = ((points[:, :2] > limits[:2]) & (points[:, :2] < limits[2:])).all(1)
    # np.diff of booleans is True where they change; the two False close runs at the ends.
    (changes,) = np.nonzero(np.diff(np.concatenate([[False], inside, [False]])))
    runs = [points[begin:end] for begin, end in changes.reshape(-1, 2)]
    return [run for run in runs if length(run) >= SHORTEST]


def length(points: Points) -> float:
    """Returns the metres along points (n, 3)."""
    return float(np.linalg.norm(np.diff(points, axis=0), axis=1).sum())


def resample(points: Points, count: int) -> Points:
    """Returns a line (n, 3) by ``count`` points, equally far apart along it."""
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    along = np.concatenate([[0.0], steps.cumsum()])
    places = np.linspace(0, along[-1], count)
    return np.stack([np.interp(places, along, axis) for axis in points.T], 1)


def lanes_around(scene: Scene, frame: int) -> dict[str, Points]:
    """Returns the lanes in range by their names, each 201 points (201, 3) on the car.

    Of a lane that leaves the range and comes back only the longest piece stays.
    """
    lanes = {}
    for lane in scene.road.lanes():
        pieces = pieces_in(to_car(scene, frame, lane.path), LANE_RANGE)
        if pieces:
            # 201, as each lane of OpenLane-V2 has.
            lanes[lane.name] = resample(max(pieces, key=length), 201)
    return lanes


def lane_connections(scene: Scene, lanes: dict[str, Points]) -> list[list[int]]:
    """Returns 1 at [i][j] where lane i, as far as it is in range, ends at the start of lane j."""
    leads = {lane.name: lane.leads_to for lane in scene.road.lanes()}

    def connected(one: str, other: str) -> bool:
        # A lane that was cut off in between does not meet its successor.
        gap = np.linalg.norm(lanes[one][-1] - lanes[other][0])
        return other in leads[one] and bool(gap < 0.5)

    return [[int(connected(one, other)) for other in lanes] for one in lanes]


def map_around(scene: Scene, frame: int) -> dict[str, list[list[list[float]]]]:
    """Returns the polylines of the three classes of vector maps, on the car, in range."""
    road = scene.road
    return {
        "ped_crossing": _rounded(
            ring
            for outline in road.crossings()
            for ring in _cut_outline(to_car(scene, frame, outline))
        ),
        "divider": _rounded(_cut_lines(scene, frame, road.dividers())),
        "boundary": _rounded(_cut_lines(scene, frame, road.boundaries())),
    }


def _cut_lines(scene: Scene, frame: int, paths: Iterable[Points]) -> list[Points]:
    return [piece for path in paths for piece in pieces_in(to_car(scene, frame, path), MAP_RANGE)]


def _cut_outline(outline: Points) -> list[Points]:
    """Returns what is in range of a closed outline (n, 3), closed again."""
    # A zebra at the edge of the range stays closed, as the challenge's are; lines are just cut.
    shape = shapely.Polygon(outline[:, :2]).intersection(shapely.box(*MAP_RANGE))
    if shape.is_empty or shape.geom_type != "Polygon" or shape.area < 1:
        return []
    # Where the ring of an intersection begins is up to GEOS; files are to be the same everywhere.
    ring = np.array(shapely.normalize(shape).exterior.coords)
    return [np.concatenate([ring, np.zeros((len(ring), 1))], 1)]


def _rounded(lines: Iterable[Points]) -> list[list[list[float]]]:
    # Millimetres: the last bits of a float64 differ between machines.
    return [line.round(3).tolist() for line in lines]
