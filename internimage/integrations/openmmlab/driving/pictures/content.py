"""What a sample's truth and predictions look like: voxels, lanes with their relations, map lines.

The one module of pictures that knows the tasks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from internimage.integrations.openmmlab.driving.data.occ3d import FREE, OCCUPANCY_CLASSES
from internimage.integrations.openmmlab.driving.data.openlane_layout import ATTRIBUTES, FRONT
from internimage.integrations.openmmlab.driving.pictures.canvas import Key
from internimage.integrations.openmmlab.driving.pictures.colours import (
    ATTRIBUTE_COLOURS,
    CONNECTION,
    LANE,
    MAP_COLOURS,
    OCCUPANCY_COLOURS,
    UNSEEN,
)
from internimage.integrations.openmmlab.driving.pictures.drawing import (
    Box,
    Drawing,
    Line,
    seen_from_above,
    voxel_faces,
)
from internimage.integrations.openmmlab.driving.sample import DrivingSample

Range = tuple[float, float, float, float, float, float]
"""x0, y0, z0, x1, y1, z1 of the model's space, metres."""

OCCUPANCY = tuple(name.replace("_", " ") for name in OCCUPANCY_CLASSES)

SIGNS = tuple(name.replace("_", " ") for name in ATTRIBUTES)

MAP = ("pedestrian crossing", "divider", "boundary")

# From here on OpenLane-V2's score counts an edge as predicted.
RELATED = 0.5
"""Score of a relation from which it is drawn, 0-1."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Content:
    """Both sides of a frame.

    Args:
        task: what it is about, for the title.
        truth: None where the sample has none.
        prediction: None likewise.
        keys: of the legend.
    """

    task: str
    truth: Drawing | None
    prediction: Drawing | None
    keys: tuple[Key, ...]


def draw_sample(sample: DrivingSample, extent: Range, *, score_threshold: float) -> Content:
    """Return what there is to see in a sample.

    Args:
        sample: with the truth, predictions, or both, of one task.
        extent: of the model's space; voxels fill it.
        score_threshold: lanes, elements and map lines that score less are left out, 0-1.

    Raises:
        ValueError: the sample has neither truth nor predictions, or these have no scores.
    """
    # What a sample holds says its task; a sample knows no config.
    if "gt_semantics" in sample or "pred_semantics" in sample:
        return _occupancy(sample, extent)
    for name, draw in (("lanes", _lanes), ("polylines", _polylines)):
        truth, prediction = sample.get(f"gt_{name}"), sample.get(f"pred_{name}")
        if truth is not None or prediction is not None:
            return draw(sample, truth, prediction, score_threshold)
    raise ValueError(
        "draw_sample: expected the truth or a prediction of occupancy, lanes or polylines in frame "
        f"{sample.get('token', 'without a token')}, got neither; frames of a split without truth "
        "are drawn with a CHECKPOINT"
    )


def _occupancy(sample: DrivingSample, extent: Range) -> Content:
    low, high = np.array(extent[:3]), np.array(extent[3:])
    colours = np.array(OCCUPANCY_COLOURS, np.uint8)
    mask = _array(sample.get("mask_camera"))
    present: set[int] = set()

    def side(semantics: np.ndarray | None) -> Drawing | None:
        if semantics is None:
            return None
        # What nobody has labelled, 255, is drawn as free: there is nothing to say of it.
        semantics = np.where(semantics < FREE, semantics, FREE)
        # The truth's mask is the prediction's as well: both count the same voxels.
        seen = np.ones_like(semantics, bool) if mask is None else mask.astype(bool)
        ground = seen_from_above(semantics, colours, FREE)
        # A column of which one voxel is seen is drawn whole; masks are of voxels, the map is flat.
        ground[~seen.any(axis=2)] = UNSEEN
        present.update(np.unique(semantics).tolist())
        kind = "" if mask is None else "seen "
        share = f"{100 * (semantics != FREE)[seen].mean():.1f} %" if seen.any() else "none"
        return Drawing(
            summary=f"{share} of the {kind}voxels occupied" if seen.any() else "no voxel is seen",
            faces=voxel_faces(semantics, colours, FREE, low, (high - low) / semantics.shape),
            ground=ground,
        )

    truth, prediction = (side(_array(sample.get(f"{one}_semantics"))) for one in ("gt", "pred"))
    keys: list[Key] = [
        (OCCUPANCY[index], OCCUPANCY_COLOURS[index], "area") for index in sorted(present - {FREE})
    ]
    if mask is not None:
        keys.append(("not seen by a camera", UNSEEN, "area"))
    return Content(task="3D occupancy", truth=truth, prediction=prediction, keys=tuple(keys))


def _lanes(
    sample: DrivingSample,
    truth: Mapping[str, Any] | None,
    prediction: Mapping[str, Any] | None,
    threshold: float,
) -> Content:
    # Boxes are in pixels of the file, pictures are of the network's input: x, y, x, y.
    scale = np.tile(np.asarray(sample.scale_factors)[FRONT], 2)
    shown: set[int] = set()

    def side(lanes: Mapping[str, Any] | None, least: float | None) -> Drawing | None:
        if lanes is None:
            return None
        # Indices, not the lanes: rows and columns of the matrices stay those of all of them.
        kept = _kept(lanes, "scores", "lanes", least)
        elements = _kept(lanes, "box_scores", "boxes", least)
        # From left to right, so that truth and prediction use a letter for the same element.
        elements.sort(key=lambda index: lanes["boxes"][index][0])
        lane_lane = np.asarray(lanes["topology_lclc"])
        lane_element = np.asarray(lanes["topology_lcte"])
        attributes = np.asarray(lanes["attributes"]).astype(int)
        shown.update(attributes[elements].tolist())
        badges = {index: _letter(number) for number, index in enumerate(elements)}
        points = [np.asarray(line, float) for line in lanes["lanes"]]
        lines = [
            Line(
                points=points[lane],
                colour=LANE,
                directed=True,
                badges=tuple(
                    (badges[element], ATTRIBUTE_COLOURS[attributes[element]])
                    for element in elements
                    if lane_element[lane, element] > RELATED
                ),
            )
            for lane in kept
        ]
        # A lane that leads into itself would be an arc to its own start.
        pairs = [(i, j) for i in kept for j in kept if i != j and lane_lane[i, j] > RELATED]
        return Drawing(
            summary=", ".join(
                _count(len(found), name)
                for found, name in ((kept, "lane"), (pairs, "connection"), (elements, "element"))
            ),
            lines=tuple(lines),
            connections=tuple(
                # From end to start an arc had no length: connected lanes meet there.
                np.stack([_at(points[i], 0.8), _at(points[j], 0.2)])
                for i, j in pairs
            ),
            boxes=tuple(
                Box(
                    camera=FRONT,
                    corners=tuple((np.asarray(lanes["boxes"][index]) * scale).tolist()),
                    colour=ATTRIBUTE_COLOURS[attributes[index]],
                    text=f"{badges[index]} {SIGNS[attributes[index]]}",
                )
                for index in elements
            ),
        )

    both = side(truth, None), side(prediction, threshold)
    keys: list[Key] = [
        ("lane centreline", LANE, "arrow"),
        ("leads into", CONNECTION, "arc"),
        *((SIGNS[index], ATTRIBUTE_COLOURS[index], "area") for index in sorted(shown)),
    ]
    return Content(
        task="Lanes and traffic elements", truth=both[0], prediction=both[1], keys=tuple(keys)
    )


def _polylines(
    sample: DrivingSample,
    truth: Mapping[str, Any] | None,
    prediction: Mapping[str, Any] | None,
    threshold: float,
) -> Content:
    def side(found: Mapping[str, Any] | None, least: float | None) -> Drawing | None:
        if found is None:
            return None
        kept = _kept(found, "scores", "polylines", least)
        labels = np.asarray(found["labels"]).astype(int)
        lines = [
            Line(points=_on_ground(found["polylines"][index]), colour=MAP_COLOURS[labels[index]])
            for index in kept
        ]
        counts = [(int((labels[kept] == label).sum()), name) for label, name in enumerate(MAP)]
        words = [_count(number, name) for number, name in counts if number]
        return Drawing(summary=", ".join(words) or "nothing", lines=tuple(lines))

    # All three, present or not: legends of an animation stay the same.
    keys: tuple[Key, ...] = tuple(
        (name, colour, "line") for name, colour in zip(MAP, MAP_COLOURS, strict=True)
    )
    return Content(
        task="Vector map",
        truth=side(truth, None),
        prediction=side(prediction, threshold),
        keys=keys,
    )


def _kept(found: Mapping[str, Any], scores: str, things: str, least: float | None) -> list[int]:
    """Return the indices of what scores enough; ``least`` is None for a truth, which is kept whole.

    Raises:
        ValueError: a prediction has no scores, or not one for each thing.
    """
    if least is None:
        return list(range(len(found[things])))
    values = np.asarray(found.get(scores, ()))
    if len(values) != len(found[things]):
        raise ValueError(
            f"draw_sample: expected {scores} for all {len(found[things])} predicted {things}, got "
            f"{len(values)}"
        )
    return np.flatnonzero(values >= least).tolist()


def _on_ground(points: Any) -> np.ndarray:
    """Return (n, 3) of a line (n, 2) or (n, 3): a flat map lies at the height of the ego frame."""
    points = np.asarray(points, float)
    if points.shape[1] == 3:
        return points
    return np.concatenate([points, np.zeros((len(points), 1))], axis=1)


def _at(points: np.ndarray, share: float) -> np.ndarray:
    """Return the point (2,) of a line at this share 0-1 of its points."""
    return points[round(share * (len(points) - 1)), :2]


def _letter(number: int) -> str:
    """Return A, B, .. Z, A1, B1, ..: the name of an element in camera and map."""
    return chr(ord("A") + number % 26) + (str(number // 26) if number >= 26 else "")


def _count(number: int, name: str) -> str:
    plural = {"boundary": "boundaries"}.get(name, f"{name}s")
    return f"{number} {name if number == 1 else plural}"


def _array(value: Any) -> np.ndarray | None:
    return None if value is None else np.asarray(value)
