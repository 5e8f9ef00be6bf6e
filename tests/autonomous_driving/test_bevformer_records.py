"""BEVFormer's view against the forward passes of the original, with its switches on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from internimage.integrations.openmmlab.driving.convert import OCCUPANCY, OPENLANE, rename
from internimage.integrations.openmmlab.driving.encoder import BEVFormerView
from internimage.integrations.openmmlab.driving.geometry import project
from internimage.integrations.openmmlab.driving.history import BEVHistory
from internimage.integrations.openmmlab.driving.occupancy import OccupancyHead
from tests.autonomous_driving.forward_records import hashed_input, read_forward_record

CASES: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "bevformer_occ_forward": (
        "pts_bbox_head.transformer.",
        OCCUPANCY,
        {"num_cameras": 6, "num_pillar_points": 8, "legacy_shift": True, "rotation_centre": (6, 6)},
    ),
    "bevformer_lane_forward": (
        "",
        (*OPENLANE, ("", None)),  # the heads of this record are not looked at here
        {
            "num_cameras": 7,
            "num_pillar_points": 4,
            "rotation_centre": (5, 7),
            "double_value_projection": True,
        },
    ),
}


class Case:
    """A record, the view with its weights, and what the view is called with."""

    def __init__(self, name: str) -> None:
        prefix, rules, switches = CASES[name]
        self.arrays, weights = read_forward_record(name)
        self.weights = {rename(prefix + key, rules): value for key, value in weights.items()}
        grid = {"range": self.arrays["cfg_pc_range"], "shape": self.arrays["cfg_bev_hw"]}
        self.view = BEVFormerView(
            grid, embed_dims=64, num_levels=2, num_layers=2, motion="can_bus", **switches
        ).eval()
        self.view.load_state_dict(self.of("view."))
        ego2img = self.arrays["in_lidar2img"]
        if rules is OCCUPANCY:  # OpenLane-V2 has no LiDAR frame: the name stands for the ego's
            ego2img = ego2img @ self.arrays["in_ego2lidar"]
        self.ego2img = torch.from_numpy(ego2img)[None]
        height, width = self.arrays["in_img_hw"].tolist()
        self.image_shape = (height, width)
        self.features = [
            hashed_input(self.arrays, f"feat{level}", tuple(shape))
            for level, shape in enumerate(self.arrays["feat_shapes"].tolist())
        ]
        self.can_bus = torch.from_numpy(self.arrays["in_can_bus"])[None]

    def of(self, prefix: str) -> dict[str, Tensor]:
        return {
            key.removeprefix(prefix): value
            for key, value in self.weights.items()
            if key is not None and key.startswith(prefix)
        }

    def history(self, *, valid: bool) -> BEVHistory:
        height, width = self.view.grid.shape
        flat = hashed_input(self.arrays, "prev_bev", (1, height * width, 64))
        bev = flat.view(1, height, width, 64).permute(0, 3, 1, 2)
        return BEVHistory(bev, torch.eye(4)[None], torch.tensor([valid]))

    @torch.no_grad()
    def run(self, *, with_history: bool) -> Tensor:
        # The records' ego moves in both cases; the alias shifts a view without history as well.
        keeps_history = with_history or self.view.legacy_shift
        return self.view(
            self.features,
            self.ego2img,
            self.image_shape,
            history=self.history(valid=with_history) if keeps_history else None,
            can_bus=self.can_bus,
        )


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


def test_the_generated_inputs_are_those_of_the_record(case: Case) -> None:
    sums = [float(feature.double().sum()) for feature in case.features]
    np.testing.assert_allclose(sums, case.arrays["feat_sum"], rtol=1e-6)


@pytest.mark.parametrize("with_history", [False, True], ids=["noprev", "prev"])
def test_the_view_is_the_originals(case: Case, with_history: bool) -> None:
    expected = case.arrays[f"out_{'prev' if with_history else 'noprev'}_bev"]
    view = case.run(with_history=with_history).numpy()
    if expected.ndim == 3:  # (B, Q, C)
        view = view.reshape(*view.shape[:2], -1).transpose(0, 2, 1)
    np.testing.assert_allclose(view, expected, rtol=0, atol=2e-4)


def test_pillars_are_seen_where_the_original_sees_them() -> None:
    case = Case("bevformer_occ_forward")
    seen = project(case.view.pillar_points, case.ego2img, case.image_shape)
    mask = case.arrays["out_bev_mask"].swapaxes(0, 1)
    points = case.arrays["out_ref_cam"].swapaxes(0, 1)
    assert 0 < mask.sum() < mask.size
    np.testing.assert_array_equal(seen.visible.numpy(), mask)
    np.testing.assert_allclose(seen.points.numpy()[mask], points[mask], rtol=1e-4)


@pytest.mark.parametrize("with_history", [False, True], ids=["noprev", "prev"])
def test_the_occupancy_head_on_the_view_is_the_originals(with_history: bool) -> None:
    case = Case("bevformer_occ_forward")
    head = OccupancyHead(64, num_heights=4, conv_channels=8, hidden_channels=16).eval()
    missing, unexpected = head.load_state_dict(case.of("head."), strict=False)
    assert not unexpected and all(key.endswith("num_batches_tracked") for key in missing)
    with torch.no_grad():
        logits = head(case.run(with_history=with_history))
    expected = case.arrays[f"out_{'prev' if with_history else 'noprev'}_logits"]
    np.testing.assert_allclose(logits.numpy(), expected, rtol=0, atol=2e-4)
