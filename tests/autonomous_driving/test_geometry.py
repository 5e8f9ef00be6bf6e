"""Cells, pillars, projections, and views that move with the ego."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.transforms.functional import rotate

from internimage.integrations.openmmlab.driving.alignment import turn_view
from internimage.integrations.openmmlab.driving.geometry import (
    BEVGrid,
    pillar_points,
    project,
    warp_bev,
)
from internimage.integrations.openmmlab.driving.history import motion_between
from internimage.integrations.openmmlab.driving.poses import ego_to_image, pose_of

GRID = BEVGrid((-8.0, -4.0, -1.0, 8.0, 4.0, 3.0), (4, 8))
LOOKING_FORWARD = [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]
"""Camera axes in the ego frame: x right, y down, z along its view."""


def yaw(degrees: float) -> np.ndarray:
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def test_row_0_is_y_min_and_column_0_is_x_min() -> None:
    metres = GRID.to_metres(GRID.centres())
    assert GRID.cell_size == (2.0, 2.0)
    assert metres[0, 0].tolist() == [-7.0, -3.0]
    assert metres[3, 0].tolist() == [-7.0, 3.0]
    assert metres[0, 7].tolist() == [7.0, -3.0]
    torch.testing.assert_close(GRID.to_fractions(metres), GRID.centres())


def test_pillar_points_stand_on_the_centres_half_a_metre_from_both_ends() -> None:
    points = pillar_points(GRID, 4)
    assert points.shape == (4, 8, 4, 3)
    torch.testing.assert_close(points[2, 5, :, 2], torch.tensor([-0.5, 0.5, 1.5, 2.5]))
    torch.testing.assert_close(points[2, 5, 3, :2], GRID.to_metres(GRID.centres())[2, 5])


@pytest.mark.parametrize(
    ("range_", "shape", "message"),
    [
        ((-1, -1, -1, -2, 1, 1), (2, 2), "every minimum below its maximum"),
        ((-1, -1, 1, 1), (2, 2), "range"),
        ((-1, -1, -1, math.nan, 1, 1), (2, 2), "every minimum below its maximum"),
        ((-1, -1, -1, 1, 1, 1), (0, 2), "of 1 or more"),
        ((-1, -1, -1, 1, 1, 1), (2, 2.5), r"whole numbers of 1 or more, got \(2, 2.5\)"),
    ],
)
def test_a_grid_without_cells_is_refused(range_: tuple, shape: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BEVGrid(range_, shape)


def test_a_range_too_low_for_pillars_is_refused() -> None:
    with pytest.raises(ValueError, match="higher than 1 m, got 0.9 m"):
        pillar_points(BEVGrid((0, 0, 0, 1, 1, 0.9), (2, 2)), 4)


def test_projection_agrees_with_a_pinhole_camera_written_out() -> None:
    rng = np.random.default_rng(0)
    intrinsic = np.array([[100.0, 0, 80], [0, 110, 45], [0, 0, 1]])
    cameras = [
        pose_of(yaw(turn) @ LOOKING_FORWARD, rng.normal(size=3)) for turn in (0.0, 120.0, 240.0)
    ]
    points = rng.uniform(-10, 10, size=(50, 3))
    matrices = np.stack([ego_to_image(intrinsic, camera) for camera in cameras])
    result = project(torch.from_numpy(points), torch.from_numpy(matrices)[None], (90, 160))
    for n, camera in enumerate(cameras):
        for p, point in enumerate(points):
            x, y, depth = camera[:3, :3].T @ (point - camera[:3, 3])
            u, v = 100 * x / max(depth, 1e-5) + 80, 110 * y / max(depth, 1e-5) + 45
            inside = depth > 1e-5 and 0 < u < 160 and 0 < v < 90
            assert bool(result.visible[0, n, p]) == inside
            if inside:
                expected = torch.tensor([u / 160, v / 90], dtype=torch.float32)
                torch.testing.assert_close(result.points[0, n, p], expected)
    assert 0 < result.visible.sum() < result.visible.numel()


def test_points_without_a_height_are_refused() -> None:
    with pytest.raises(ValueError, match=r"points of shape \(..., 3\) .* got \(6, 2\)"):
        project(torch.zeros(6, 2), torch.eye(4)[None, None], (90, 160))


def test_a_drive_forward_moves_the_view_back_by_its_cells() -> None:
    bev = torch.randn(1, 3, *GRID.shape)
    before = pose_of(yaw(30), [100.0, 200.0, 1.0])
    after = before @ pose_of(yaw(0), [4.0, 0.0, 0.0])  # two cells along x
    motion = torch.from_numpy(motion_between(before, after))[None]
    warped, inside = warp_bev(bev, motion, GRID)
    torch.testing.assert_close(warped[..., :-2], bev[..., 2:], rtol=0, atol=1e-5)
    assert inside[..., :-2].all() and not inside[..., -2:].any()


def test_a_turn_to_the_left_turns_the_view_to_the_right() -> None:
    grid = BEVGrid((-5, -5, -1, 5, 5, 3), (5, 5))
    bev = torch.zeros(1, 1, 5, 5)
    bev[0, 0, 2, 4] = 1.0  # four metres in front
    motion = torch.from_numpy(motion_between(np.eye(4), pose_of(yaw(90), [0, 0, 0])))[None]
    warped, inside = warp_bev(bev, motion, grid)
    expected = torch.zeros(1, 1, 5, 5)
    expected[0, 0, 0, 2] = 1.0  # now to the right
    torch.testing.assert_close(warped, expected, rtol=0, atol=1e-5)
    assert inside.all()


def test_each_sample_of_a_batch_moves_by_its_own_motion() -> None:
    bev = torch.randn(3, 2, *GRID.shape)
    motions = torch.stack(
        [torch.from_numpy(pose_of(yaw(turn), [turn / 10, 1.0, 0.0])) for turn in (0.0, 20.0, -35.0)]
    )
    together, inside = warp_bev(bev, motions, GRID)
    for i in range(3):
        warped, own = warp_bev(bev[i : i + 1], motions[i : i + 1], GRID)
        torch.testing.assert_close(together[i : i + 1], warped)
        assert torch.equal(inside[i : i + 1], own)


class MatrixProducts(TorchDispatchMode):
    """Notes the products of matrices, and of which type: those in float32 are what TF32 rounds."""

    def __init__(self) -> None:
        super().__init__()
        self.types: list[torch.dtype] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator, and note it if it multiplies matrices."""
        if any(name in func.__name__ for name in ("mm", "mv", "dot", "matmul", "einsum", "linear")):
            self.types += [value.dtype for value in args if isinstance(value, Tensor)]
        return func(*args, **(kwargs or {}))


def test_products_of_matrices_are_noticed() -> None:
    with MatrixProducts() as products:
        (
            torch.eye(3) @ torch.eye(3),
            torch.eye(3)[None] @ torch.eye(3)[None],
            torch.eye(3) @ torch.ones(3),
        )
    assert products.types == [torch.float32] * 6


@pytest.mark.parametrize("autocast", [False, True])
def test_no_place_comes_of_a_product_that_tf32_or_autocast_would_round(autocast: bool) -> None:
    matrix = torch.eye(4)[None, None].expand(2, 3, -1, -1)
    bev = torch.randn(2, 3, *GRID.shape)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast), MatrixProducts() as products:
        project(pillar_points(GRID, 4), matrix, (90, 160))
        warp_bev(bev, matrix[:, 0], GRID)
        turn_view(bev[0], 30.0, (4.0, 2.0))
    assert set(products.types) <= {torch.float64}


def test_a_projection_is_the_same_under_autocast() -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(50, 3, generator=generator)
    matrix = torch.randn(1, 2, 4, 4, generator=generator)
    expected = project(points, matrix, (90, 160))
    with torch.autocast("cpu", torch.bfloat16):
        result = project(points, matrix, (90, 160))
    assert torch.equal(result.points, expected.points)
    assert torch.equal(result.visible, expected.visible)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU, which may have TF32")
def test_a_projection_on_a_gpu_with_tf32_is_that_in_float64(monkeypatch: Any) -> None:
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", True)
    camera = pose_of(LOOKING_FORWARD, [1.5, 0.1, 1.6])
    matrix = ego_to_image([[1260.0, 0, 800], [0, 1260, 450], [0, 0, 1]], camera)
    points = torch.rand(1000, 3, dtype=torch.float64) * torch.tensor([60.0, 20, 6]) + 3
    exact = points @ torch.from_numpy(matrix[:3, :3]).T + torch.from_numpy(matrix[:3, 3])
    pixels = exact[:, :2] / exact[:, 2:]
    matrices = torch.from_numpy(matrix)[None, None].cuda()
    found = project(points.cuda(), matrices, (928, 1600)).points[0, 0].cpu()
    error = (found * torch.tensor([1600, 928]) - pixels).abs()
    assert error.max() < 0.01


@pytest.mark.parametrize("degrees", [0.0, 3.0, -17.5, 90.0, 179.0])
@pytest.mark.parametrize("centre", [(4.0, 2.0), (5.0, 1.0)])
def test_a_view_is_turned_as_torchvision_turns_pictures(
    degrees: float, centre: tuple[float, float]
) -> None:
    bev = torch.randn(3, *GRID.shape)
    expected = rotate(bev.double(), degrees, center=list(centre)).float()
    assert torch.equal(turn_view(bev, degrees, centre), expected)


def test_a_view_in_half_precision_is_turned_as_one_in_float32() -> None:
    bev = torch.randn(2, 200, 200).bfloat16()
    assert torch.equal(
        turn_view(bev, 2.3, (100.0, 100.0)), turn_view(bev.float(), 2.3, (100.0, 100.0)).bfloat16()
    )
