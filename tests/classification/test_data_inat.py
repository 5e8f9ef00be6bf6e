"""Dates and places of iNaturalist as the numbers that a model takes."""

import math
from typing import Any

import pytest

from classification.data.inat import encode_place, encode_time


@pytest.mark.parametrize("month", range(1, 13))
def test_months_are_twelfths_of_a_turn(month: int):
    angle = math.radians(30 * month)
    expected = (math.sin(angle), math.cos(angle), 0, 0)
    assert encode_time(f"2018-{month:02}-15") == pytest.approx(expected, abs=1e-12)
    assert encode_time(f" 2018-{month}-15 23:59:59") == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("date", [None, "", "2018", "yesterday", 20180101])
def test_an_unknown_date_is_zeros(date: Any):
    assert encode_time(date) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("latitude", "longitude", "expected"),
    [
        (90, 12, (0, 0, 1)),
        (-90, 0, (0, 0, -1)),
        (0, 0, (1, 0, 0)),
        (0, 180, (-1, 0, 0)),
        (45, -90, (0, -math.sqrt(0.5), math.sqrt(0.5))),
        (None, 3, (0, 0, 0)),
        (3, None, (0, 0, 0)),
        (math.nan, 3, (0, 0, 0)),
        ("3", 3, (0, 0, 0)),
    ],
)
def test_places_lie_on_the_unit_sphere(latitude, longitude, expected):
    assert encode_place(latitude, longitude) == pytest.approx(expected, abs=1e-12)
