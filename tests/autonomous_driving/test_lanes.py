"""Lanes: Bezier curves and the lane head of the original, record by record."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest
import torch

from internimage.integrations.openmmlab.driving.bezier import bernstein, fit_bezier
from internimage.integrations.openmmlab.driving.convert import convert_driving
from internimage.integrations.openmmlab.driving.lanes.decoder import LaneDecoder
from internimage.integrations.openmmlab.driving.lanes.head import OpenLaneHead
from internimage.integrations.openmmlab.driving.lanes.relations import RelationHead
from tests.autonomous_driving.forward_records import RECORDS, read_forward_record

LANE_RANGE = (-51.2, -25.6, -2.3, 51.2, 25.6, 1.7)


def test_control_points_are_those_of_the_original():
    with np.load(RECORDS / "bezier.npz") as record:
        for index in range(len(record.files) // 2):
            fitted = fit_bezier(record[f"points{index}"])
            np.testing.assert_allclose(fitted.ravel(), record[f"control{index}"], atol=1e-4)


def test_a_curve_gives_its_control_points_back():
    control = np.random.default_rng(0).normal(0, 10, (5, 3))
    np.testing.assert_allclose(fit_bezier(bernstein(30) @ control), control, atol=1e-9)


@pytest.mark.parametrize("num_points", [2, 3, 4])
def test_a_lane_of_few_points_is_the_line_between_them(num_points):
    line = np.linspace([0.0, 1.0, 2.0], [8.0, -3.0, 2.5], num_points)
    sampled = bernstein(11) @ fit_bezier(line)
    np.testing.assert_allclose(sampled, np.linspace(line[0], line[-1], 11), atol=1e-9)


def test_one_point_is_no_lane():
    with pytest.raises(ValueError, match="at least two points"):
        fit_bezier(np.zeros((1, 3)))


@torch.no_grad()
def test_lanes_and_relations_are_those_of_the_original():
    arrays, parameters = read_forward_record("bevformer_lane_forward")
    converted = convert_driving(parameters)
    lanes = LaneDecoder(
        LANE_RANGE, embed_dims=64, num_queries=20, num_layers=2, feedforward_channels=128
    ).eval()
    relation = RelationHead(64).eval()
    for module, prefix in ((lanes, "head.lanes."), (relation, "head.lane_to_lane.")):
        module.load_state_dict(
            {k.removeprefix(prefix): v for k, v in converted.items() if k.startswith(prefix)}
        )
    height, width = arrays["cfg_bev_hw"]
    bev = torch.from_numpy(arrays["out_noprev_bev"]).mT.unflatten(-1, (int(height), int(width)))
    outputs = lanes(bev)
    related = relation(outputs.states[-1], outputs.states[-1]).sigmoid()
    for got, name in (
        (outputs.logits, "lane_cls"),
        (outputs.control_points, "lane_ctrl"),
        (outputs.states, "lane_feat"),
        (related[0], "lclc"),
    ):
        np.testing.assert_allclose(got, arrays[f"out_{name}"], atol=2e-4, err_msg=name)


def test_every_weight_of_the_released_heads_has_its_place():
    with gzip.open(RECORDS / "keys_openlanev2_internimage-s.json.gz", "rt") as file:
        shapes = json.load(file)["keys"]
    weights = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    converted = {
        key.removeprefix("head."): tuple(value.shape)
        for key, value in convert_driving(weights).items()
        if key.startswith("head.")
    }
    with torch.device("meta"):
        head = OpenLaneHead(LANE_RANGE)
    assert converted == {key: tuple(value.shape) for key, value in head.state_dict().items()}
