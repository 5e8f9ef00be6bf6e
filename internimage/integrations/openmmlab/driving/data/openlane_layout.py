"""A frame in the layout of OpenLane-V2: what an annotation and a prediction have to hold.

Letters: n points of a lane, q lanes, k traffic elements of a frame.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

CAMERAS = (
    "ring_front_center",
    "ring_front_left",
    "ring_front_right",
    "ring_rear_left",
    "ring_rear_right",
    "ring_side_left",
    "ring_side_right",
)
"""The order of the cameras in a model."""

FRONT = CAMERAS.index("ring_front_center")
"""The camera whose image the traffic elements are of."""

# Starred rows, so that the formatter gives no name a line of its own.
ATTRIBUTES = (
    *("unknown", "red", "green", "yellow", "go_straight", "turn_left", "turn_right"),
    *("no_left_turn", "no_right_turn", "u_turn", "no_u_turn", "slight_left", "slight_right"),
)
"""What a traffic element says, in the order of its numbers."""

_PARTS = ("lane_centerline", "traffic_element", "topology_lclc", "topology_lcte")


def check_frame(frame: Any, where: str, *, scored: bool = False) -> None:
    """Check an annotation or a prediction.

    Args:
        frame: ``lane_centerline``, q dictionaries with ``points`` (n, 3); ``traffic_element``, k
            with ``points`` (2, 2) and ``attribute``; ``topology_lclc`` (q, q) and
            ``topology_lcte`` (q, k), where an empty one may have any shape.
        where: names it in errors.
        scored: whether each lane and element has a ``confidence``.

    Raises:
        ValueError: a part or a score is missing or of another kind, a lane has fewer than two
            points, a number is not finite, a box or an attribute is none, or a matrix does not fit
            or holds others than relations, 0 and 1, or the scores of a prediction, 0-1.
    """
    missing = [part for part in _PARTS if not isinstance(frame, Mapping) or part not in frame]
    if missing:
        raise ValueError(f"openlane: expected {', '.join(_PARTS)} in {where}, got no {missing[0]}")
    keys = {"lane_centerline": {"points"}, "traffic_element": {"points", "attribute"}}
    for kind, needed in keys.items():
        if not isinstance(frame[kind], Sequence):
            raise ValueError(
                f"openlane: expected a list for {kind} in {where}, got {frame[kind]!r:.40}"
            )
        for number, entry in enumerate(frame[kind]):
            if not isinstance(entry, Mapping):
                raise ValueError(
                    f"openlane: expected a dictionary for {kind} number {number} of {where}, got "
                    f"{entry!r:.40}"
                )
            name = f"{kind} {entry.get('id', '')} of {where}"
            missing = sorted((needed | ({"confidence"} if scored else set())) - set(entry))
            if missing:
                raise ValueError(f"openlane: expected a value for {missing[0]} in {name}, got none")
            # 0 stands for a confidence that is not asked for.
            numbers = entry["points"], entry["confidence"] if scored else 0
            if not all(np.isfinite(_numbers(value, name)).all() for value in numbers):
                raise ValueError(f"openlane: expected finite numbers in {name}, got others")
            if scored and not (np.ndim(numbers[1]) == 0 and 0 <= float(numbers[1]) <= 1):
                raise ValueError(
                    f"openlane: expected a confidence 0-1 in {name}, got {numbers[1]!r:.40}"
                )
            _check_entry(kind, entry, name)
    num_lanes, num_elements = len(frame["lane_centerline"]), len(frame["traffic_element"])
    for part, columns in (("topology_lclc", num_lanes), ("topology_lcte", num_elements)):
        values = _numbers(frame[part], f"{part} of {where}")
        shape = values.shape
        # A list of no rows has lost its second dimension.
        empty = num_lanes * columns == 0 and values.size == 0
        if shape != (num_lanes, columns) and not empty:
            raise ValueError(
                f"openlane: expected {part} of shape {(num_lanes, columns)} in {where}, got {shape}"
            )
        # A score that is no number would silently be "no edge".
        right = (values >= 0) & (values <= 1) if scored else (values == 0) | (values == 1)
        if not right.all():
            raise ValueError(
                f"openlane: expected {part} of {'numbers 0-1' if scored else '0 and 1'} in "
                f"{where}, got {values[~right][0]}"
            )


def _numbers(value: Any, name: str) -> np.ndarray:
    """Return a value as float64.

    Raises:
        ValueError: it holds something else, or rows of unlike length.
    """
    try:
        return np.asarray(value, np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"openlane: expected numbers in rows of one length in {name}, got {value!r:.60}"
        ) from error


def _check_entry(kind: str, entry: Mapping[str, Any], name: str) -> None:
    shape = np.shape(entry["points"])
    if kind == "traffic_element":
        if shape != (2, 2):
            raise ValueError(f"openlane: expected two corners (x, y) in {name}, got {shape}")
        # Its area would be positive again, its overlap with any box 0.
        if (np.subtract(entry["points"][1], entry["points"][0]) < 0).any():
            raise ValueError(
                f"openlane: expected the upper left corner before the lower right one in {name}, "
                f"got {np.asarray(entry['points']).tolist()}"
            )
        if entry["attribute"] not in range(len(ATTRIBUTES)):
            raise ValueError(
                f"openlane: expected an attribute 0 to {len(ATTRIBUTES) - 1} in {name}, got "
                f"{entry['attribute']}"
            )
    elif len(shape) != 2 or shape[0] < 2 or shape[1] != 3:
        raise ValueError(
            f"openlane: expected at least two points (x, y, z) in {name}, got an array {shape}"
        )


def lanes_to_openlane(lanes: Mapping[str, Any], *, scored: bool) -> dict[str, Any]:
    """Return the lanes of a sample in the layout of OpenLane-V2.

    Args:
        lanes: ``gt_lanes`` or ``pred_lanes`` of a ``DrivingSample``: ``lanes`` q arrays (n, 3) in
            ego metres, ``boxes`` (k, 4) corners in pixels of the front image as it lies on the
            disk, ``attributes`` (k,), ``topology_lclc`` (q, q), ``topology_lcte`` (q, k), and, if
            scored, ``scores`` (q,) and ``box_scores`` (k,).
        scored: whether each lane and element gets a ``confidence``.

    Raises:
        ValueError: a field is missing, or their lengths differ.
    """
    lengths = {"lanes": ["scores"], "boxes": ["attributes", "box_scores"]}
    names = ["lanes", "boxes", "attributes", "topology_lclc", "topology_lcte"]
    names += ["scores", "box_scores"] if scored else []
    missing = [name for name in names if name not in lanes]
    if missing:
        raise ValueError(f"lanes_to_openlane: expected {', '.join(names)}, got no {missing[0]}")
    for whole, parts in lengths.items():
        # The scores only where they are asked for.
        for part in set(parts) & set(names):
            if len(lanes[part]) != len(lanes[whole]):
                raise ValueError(
                    f"lanes_to_openlane: expected {len(lanes[whole])} {part}, as many as {whole}, "
                    f"got {len(lanes[part])}"
                )
    num_lanes = len(lanes["lanes"])
    entries: dict[str, list[dict[str, Any]]] = {
        "lane_centerline": [
            {"id": index, "points": np.asarray(points, np.float32)}
            for index, points in enumerate(lanes["lanes"])
        ],
        # One range of ids for both, so that none stands for a lane and an element.
        "traffic_element": [
            {
                "id": num_lanes + index,
                "attribute": int(attribute),
                "points": np.asarray(box, np.float32).reshape(2, 2),
            }
            for index, (box, attribute) in enumerate(
                zip(lanes["boxes"], lanes["attributes"], strict=True)
            )
        ],
    }
    if scored:
        for kind, key in (("lane_centerline", "scores"), ("traffic_element", "box_scores")):
            for entry, score in zip(entries[kind], lanes[key], strict=True):
                entry["confidence"] = float(score)
    matrices = {part: np.asarray(lanes[part], np.float32) for part in _PARTS[2:]}
    return {**entries, **matrices}
