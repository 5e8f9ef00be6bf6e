"""BEVFormer's view: batches, history, and the queries that a camera attends for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch
from torch import Tensor

from internimage.integrations.openmmlab.driving import attention, encoder
from internimage.integrations.openmmlab.driving.attention import SeenQueries, gather_seen
from internimage.integrations.openmmlab.driving.geometry import project
from internimage.integrations.openmmlab.driving.history import (
    BEVHistory,
    can_bus_of_pose,
    motion_between,
    relative_can_bus,
)
from tests.autonomous_driving.small_views import (
    IMAGE_SHAPE,
    cameras,
    drive,
    small_features,
    small_view,
)

SETTINGS: list[dict[str, Any]] = [{}, {"motion": "can_bus"}]


def inputs(batch: int) -> dict[str, Any]:
    """Return what a view is called with, for samples that differ in everything."""
    poses = [drive(2, seed=i) for i in range(batch)]
    readings = [
        relative_can_bus(can_bus_of_pose(after), can_bus_of_pose(before)) for before, after in poses
    ]
    return {
        "features": small_features(batch),
        "ego2img": torch.from_numpy(np.stack([cameras(3, seed=i) for i in range(batch)])),
        "image_shape": IMAGE_SHAPE,
        "history": BEVHistory(
            torch.randn(batch, 16, 6, 8, generator=torch.Generator().manual_seed(1)),
            torch.from_numpy(np.stack([motion_between(*both) for both in poses])),
            torch.arange(batch) % 2 == 0,  # every other sample has history
        ),
        "can_bus": torch.from_numpy(np.stack(readings)).float(),
    }


def only(arguments: dict[str, Any], i: int, *, history: BEVHistory | None) -> dict[str, Any]:
    """Return the arguments of one sample of a batch."""
    return {
        "features": [level[i : i + 1] for level in arguments["features"]],
        "ego2img": arguments["ego2img"][i : i + 1],
        "image_shape": IMAGE_SHAPE,
        "history": history,
        "can_bus": arguments["can_bus"][i : i + 1],
    }


@pytest.mark.parametrize("settings", SETTINGS, ids=["ego_pose", "can_bus"])
@torch.no_grad()
def test_a_batch_gives_what_its_samples_give_alone(settings: dict[str, Any]) -> None:
    view, arguments = small_view(**settings), inputs(4)
    together = view(**arguments)
    whole = arguments["history"]
    for i in range(4):
        own = BEVHistory(*(part[i : i + 1] for part in (whole.bev, whole.motion, whole.valid)))
        alone = view(**only(arguments, i, history=own))
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_sample_without_history_takes_nothing_from_the_others() -> None:
    view, arguments = small_view(), inputs(2)
    mixed = view(**arguments)[1:]
    torch.testing.assert_close(
        mixed, view(**only(arguments, 1, history=None)), rtol=1e-4, atol=1e-5
    )


@torch.no_grad()
def test_history_changes_the_view() -> None:
    view, arguments = small_view(), inputs(1)
    without = view(**{**arguments, "history": None})
    assert (view(**arguments) - without).abs().max() > 0.01


@torch.no_grad()
def test_a_view_that_was_elsewhere_is_no_history() -> None:
    view, arguments = small_view(), inputs(1)
    far = torch.eye(4)[None]
    far[0, 0, 3] = 1000.0
    gone = BEVHistory(arguments["history"].bev, far, torch.tensor([True]))
    torch.testing.assert_close(
        view(**{**arguments, "history": gone}), view(**{**arguments, "history": None})
    )


@torch.no_grad()
def test_gathered_queries_give_what_all_queries_give(monkeypatch: pytest.MonkeyPatch) -> None:
    def keep_all(seen: Tensor) -> SeenQueries:
        return SeenQueries(torch.arange(seen.shape[-1]).expand(seen.shape), seen)

    view, arguments = small_view(), inputs(2)
    gathered = view(**arguments)
    monkeypatch.setattr(encoder, "gather_seen", keep_all)
    torch.testing.assert_close(view(**arguments), gathered, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_sampling_in_small_steps_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    view, arguments = small_view(), inputs(2)
    at_once = view(**arguments)
    monkeypatch.setattr(attention, "_SAMPLED_AT_ONCE", 1)
    torch.testing.assert_close(view(**arguments), at_once, rtol=1e-4, atol=1e-5)


class StandInForTheKernel:
    """What mmcv's CUDA kernel is called with, checked as the kernel demands it."""

    calls = 0

    @classmethod
    def apply(
        cls,
        value: Tensor,
        sizes: Tensor,
        starts: Tensor,
        locations: Tensor,
        weights: Tensor,
        step: int,
    ) -> Tensor:
        """Return what mmcv's reference computes of the same arguments."""
        cls.calls += 1
        assert all(part.is_contiguous() for part in (value, sizes, starts, locations, weights))
        assert sizes.dtype == starts.dtype == torch.int64
        assert len(value) % min(len(value), step) == 0
        ends = [*starts.tolist()[1:], value.shape[1]]
        assert [end - start for start, end in zip(starts.tolist(), ends, strict=True)] == [
            height * width for height, width in sizes.tolist()
        ]
        return multi_scale_deformable_attn_pytorch(value, sizes.tolist(), locations, weights)


@torch.no_grad()
def test_the_kernel_is_called_as_it_demands(monkeypatch: pytest.MonkeyPatch) -> None:
    view, arguments = small_view(), inputs(3)
    expected = view(**arguments)
    monkeypatch.setattr(attention, "_has_kernel", lambda value: True)
    monkeypatch.setattr(attention, "MultiScaleDeformableAttnFunction", StandInForTheKernel)
    torch.testing.assert_close(view(**arguments), expected, rtol=1e-4, atol=1e-5)
    assert StandInForTheKernel.calls == 4  # two layers of two attentions


@torch.no_grad()
def test_half_precision_leaves_the_geometry_alone() -> None:
    view, arguments = small_view(num_layers=1), inputs(2)
    full = view(**arguments)
    with torch.autocast("cpu", torch.bfloat16):
        half = view(**arguments)
        seen = project(view.pillar_points, arguments["ego2img"], IMAGE_SHAPE)
    expected = project(view.pillar_points, arguments["ego2img"], IMAGE_SHAPE)
    assert torch.equal(seen.points, expected.points)
    assert (half - full).abs().max() < 0.1  # of values up to 3, with 8 bits


def test_gathering_names_each_seen_cell_once_a_camera() -> None:
    seen = torch.rand(2, 3, 40, generator=torch.Generator().manual_seed(0)) < 0.3
    cells, kept = gather_seen(seen)
    assert cells.shape[-1] == seen.sum(-1).max() < 40
    for b in range(2):
        for n in range(3):
            expected = seen[b, n].nonzero().flatten()
            assert torch.equal(cells[b, n][kept[b, n]], expected)


@torch.no_grad()
def test_cameras_that_see_nothing_leave_a_view_that_is_finite() -> None:
    view, arguments = small_view(), inputs(2)
    blind = torch.zeros_like(arguments["ego2img"])
    first, second = view(**{**arguments, "ego2img": blind})
    assert first.isfinite().all()
    other = [level.flip(0) for level in arguments["features"]]
    again = view(**{**arguments, "ego2img": blind, "features": other})
    torch.testing.assert_close(again, torch.stack([first, second]))


def test_every_parameter_learns_with_and_without_history() -> None:
    view, arguments = small_view(), inputs(2)
    for history in (arguments["history"], None):
        view.zero_grad()
        view(**{**arguments, "history": history}).square().mean().backward()
        still = [
            name
            for name, parameter in view.named_parameters()
            if parameter.grad is None or not parameter.grad.any()
        ]
        assert not still


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": small_features(1)[:1]}, "expected 2 levels"),
        ({"ego2img": torch.zeros(1, 2, 4, 4)}, "matrices of 3 cameras, got .* and 2"),
        ({"can_bus": None}, r"can_bus of shape .* = \(1, 18\), got None"),
        ({"can_bus": torch.zeros(1, 3)}, r"got \(1, 3\)"),
        ({"can_bus": torch.zeros(2, 18)}, r"got \(2, 18\)"),
    ],
    ids=["levels", "cameras", "no readings", "short readings", "other batch"],
)
def test_inputs_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_view()(**{**inputs(1), **change})


def test_history_for_a_view_that_takes_none_is_refused() -> None:
    with pytest.raises(ValueError, match="uses_history = False"):
        small_view(uses_history=False)(**inputs(1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"motion": "poses"}, "motion ego_pose or can_bus, got poses"),
        ({"legacy_shift": True}, "motion = can_bus only"),
        ({"rotation_centre": (3, 4)}, "motion = can_bus only"),
        ({"uses_can_bus": False, "absolute_can_bus": True}, "uses_can_bus = True"),
        ({"motion": "can_bus", "absolute_can_bus": True}, "got True, True and True"),
        ({"motion": "can_bus", "uses_can_bus": False}, "got True, False and False"),
        ({"motion": "can_bus", "uses_history": False}, "got False, True and False"),
        ({"num_points": 6}, "multiple of num_pillar_points, got 6 and 4"),
        ({"num_heads": 3}, "multiple of num_heads, got 16 and 3"),
        ({"num_layers": 0}, "num_layers to be a whole number >= 1, got 0"),
        ({"num_layers": "two"}, "num_layers to be a whole number >= 1, got 'two'"),
        ({"num_cameras": 2.0}, "num_cameras to be a whole number >= 1, got 2.0"),
        ({"feedforward_channels": 0}, "feedforward_channels to be a whole number >= 1, got 0"),
    ],
)
def test_settings_without_effect_or_sense_are_refused(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        small_view(**settings)
