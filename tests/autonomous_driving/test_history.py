"""What a frame knows of the one before: motion, readings, the kept view."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from internimage.integrations.openmmlab.driving.alignment import can_bus_shift
from internimage.integrations.openmmlab.driving.geometry import BEVGrid
from internimage.integrations.openmmlab.driving.history import (
    BEVHistory,
    can_bus_of_pose,
    motion_between,
    relative_can_bus,
)
from internimage.integrations.openmmlab.driving.poses import pose_of
from tests.autonomous_driving.small_views import drive


def test_motion_takes_points_from_the_previous_ego_to_the_current_one() -> None:
    before, after = drive(2, seed=3)
    point = np.array([3.0, -2.0, 1.0, 1.0])
    moved = motion_between(before, after) @ point
    np.testing.assert_allclose(after @ moved, before @ point, atol=1e-9)


def test_readings_of_a_pose_are_its_place_and_its_heading() -> None:
    pose = drive(4, seed=1)[-1]
    readings = can_bus_of_pose(pose)
    np.testing.assert_array_equal(readings[:3], pose[:3, 3])
    np.testing.assert_allclose(pose_of(readings[3:7], readings[:3]), pose, atol=1e-12)
    assert not readings[7:16].any()
    heading = [np.cos(readings[16]), np.sin(readings[16])]
    np.testing.assert_allclose(heading, pose[:2, 0], atol=1e-12)
    assert readings[17] == pytest.approx(np.degrees(readings[16]))


def test_relative_readings_differ_in_place_and_degrees_alone() -> None:
    first, second = (can_bus_of_pose(pose) for pose in drive(2, seed=2))
    relative = relative_can_bus(second, first)
    np.testing.assert_array_equal(relative[:3], second[:3] - first[:3])
    np.testing.assert_array_equal(relative[3:17], second[3:17])
    turn = (second[17] - first[17] + 180) % 360 - 180
    assert relative[17] == pytest.approx(turn)


@pytest.mark.parametrize(
    ("before", "after", "change"), [(359.0, 1.0, 2.0), (1.0, 359.0, -2.0), (170.0, 190.0, 20.0)]
)
def test_a_turn_across_north_is_as_small_as_any(before: float, after: float, change: float) -> None:
    first, second = np.zeros(18), np.zeros(18)
    first[-1], second[-1] = before, after
    assert relative_can_bus(second, first)[-1] == pytest.approx(change)


def test_a_first_frame_has_not_moved() -> None:
    first = can_bus_of_pose(drive(2)[1])
    relative = relative_can_bus(first, None)
    assert not relative[:3].any() and relative[17] == 0
    np.testing.assert_array_equal(relative[3:17], first[3:17])


def test_the_shift_of_released_models_is_that_of_a_grid_whose_y_is_forward() -> None:
    grid = BEVGrid((-40, -20, -1, 40, 20, 3), (10, 20))
    readings = torch.zeros(2, 18)
    readings[:, 0] = 4.0  # along the global x
    readings[1, -2] = np.pi / 2
    shift = can_bus_shift(readings, grid)
    # heading along the way: y; heading to its left: the way is to the right of the ego
    torch.testing.assert_close(
        shift, torch.tensor([[0.0, 4 / 40], [4 / 80, 0.0]]), atol=1e-6, rtol=0
    )


def test_a_history_of_several_batch_sizes_is_refused() -> None:
    with pytest.raises(ValueError, match=r"of one batch, got \(2, 1, 2\) samples"):
        BEVHistory(torch.zeros(2, 1, 1, 1), torch.eye(4)[None], torch.ones(2, dtype=torch.bool))
