"""Targets of vectorised maps: the records of the original, and polylines that come back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from internimage.integrations.openmmlab.driving.vector_map.canvas import MapCanvas
from internimage.integrations.openmmlab.driving.vector_map.targets import (
    encode_elements,
    simplify_polyline,
    token_weights,
)

RECORDS = Path(__file__).parents[1] / "fixtures" / "parity" / "driving"


def test_targets_are_those_of_the_original():
    canvas = MapCanvas()
    records = json.loads((RECORDS / "hdmap_targets.json").read_text())
    for record in records:
        (line,) = simplify_polyline(np.array(record["line"]), canvas)
        (target,) = encode_elements([np.array(record["line"])], [record["category"]], canvas)
        np.testing.assert_allclose(
            canvas.to_fractions(line), record["simplified_normalised"], atol=1e-9
        )
        np.testing.assert_allclose(target.box, record["box_canvas"], atol=1e-4)
        np.testing.assert_allclose(target.weights, record["token_weights"], atol=1e-9)
        assert target.box_tokens.tolist() == record["box_tokens"]
        assert target.tokens.tolist() == record["tokens"]
    assert len(records) == 12


def test_vertices_come_back_from_their_tokens_within_half_a_cell():
    canvas = MapCanvas()
    points = np.random.default_rng(0).uniform([-30, -15], [30, 15], (200, 2))
    error = canvas.to_metres(canvas.to_tokens(canvas.to_fractions(points))) - points
    assert (abs(error) <= canvas.size / canvas.scale / 2 + 1e-9).all()
    assert (abs(error.mean(axis=0)) < 0.03).all()  # no shift to one side


def test_what_leaves_the_range_is_cut_off_and_comes_in_parts():
    canvas = MapCanvas()
    parts = list(simplify_polyline(np.array([[0, 10], [0, 20], [5, 20], [5, 10]], float), canvas))
    assert [part.tolist() for part in parts] == [[[0, 10], [0, 15]], [[5, 15], [5, 10]]]
    assert encode_elements([np.array([[40.0, 0], [50, 0]])], [1], canvas) == []


def test_a_line_without_length_has_the_same_weight_everywhere():
    assert token_weights(np.full((2, 2), 0.5), by_length=True) == pytest.approx([0.2] * 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"range": (0, 0, -1, 1)}, "every minimum below"),
        ({"range": (0, 0, float("inf"), 1)}, "every minimum below"),
        ({"cells": (1, 8)}, "whole numbers of 2 or more, got \\(1, 8\\)"),
        ({"cells": (200.5, 100)}, "got \\(200.5, 100\\)"),
        ({"slack": -1.0}, "slack = metres of 0 or more, got -1.0"),
        ({"slack": float("nan")}, "slack = metres of 0 or more, got nan"),
    ],
)
def test_a_canvas_has_cells_and_an_area(arguments, message):
    with pytest.raises(ValueError, match=message):
        MapCanvas(**arguments)
