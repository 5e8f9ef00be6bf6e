"""Poses, quaternions and cameras; faults of calibrations."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from internimage.integrations.openmmlab.driving.poses import (
    check_rigid,
    ego_to_image,
    pose_of,
    quaternion_of,
    scale_image,
    yaw_of,
)


def test_a_quaternion_has_w_first() -> None:
    half = np.sqrt(0.5)
    turn = pose_of([half, 0, 0, half], [1, 2, 3])  # to the left, about z
    expected = [[0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]]
    np.testing.assert_allclose(turn, expected, atol=1e-12)


@pytest.mark.parametrize("length", [0.0, 0.998, 1.2, np.nan])
def test_a_quaternion_of_another_length_than_1_is_refused_by_name(length: float) -> None:
    with pytest.raises(ValueError, match="CAM_BACK: expected a quaternion .* of length 1, got"):
        pose_of([0, length, 0, 0], np.zeros(3), "CAM_BACK")
    pose_of([0, 0.9995, 0, 0], np.zeros(3))  # rounded


@pytest.mark.parametrize("seed", range(5))
def test_a_rotation_has_one_quaternion_and_back(seed: int) -> None:
    rotation = Rotation.random(random_state=seed).as_matrix()
    quaternion = quaternion_of(rotation)
    assert quaternion[0] >= 0
    np.testing.assert_allclose(pose_of(quaternion, np.zeros(3))[:3, :3], rotation, atol=1e-12)


def test_yaw_is_counted_from_x_to_y_within_a_turn() -> None:
    degrees = [0, 90, 270]
    yaws = [yaw_of(Rotation.from_euler("z", turn, degrees=True).as_matrix()) for turn in degrees]
    np.testing.assert_allclose(np.degrees(yaws), degrees, atol=1e-9)


@pytest.mark.parametrize(
    ("pose", "message"),
    [
        (np.eye(3), "4 x 4 finite numbers"),
        (np.full((4, 4), np.nan), "4 x 4 finite numbers"),
        (np.diag([1.0, 1.0, 1.1, 1.0]), "rigid pose"),
        (np.diag([1.0, 1.0, -1.0, 1.0]), "rigid pose"),
        (np.array([[1, 0.1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "rigid pose"),
        (np.vstack([np.eye(4)[:3], [0, 0, 0.5, 1]]), "last row 0 0 0 1"),
    ],
    ids=["shape", "nan", "stretched", "mirrored", "sheared", "projective"],
)
def test_a_pose_that_is_not_rigid_is_refused_by_name(pose: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=f"CAM_BACK: expected .*{message}"):
        check_rigid(pose, "CAM_BACK")


def test_poses_of_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"got \(3, 3\) and \(4,\)"):
        pose_of(np.eye(3), np.zeros(4))
    with pytest.raises(ValueError, match="quaternion .* of length 1"):
        pose_of(np.zeros(4), np.zeros(3))


@pytest.mark.parametrize(
    "intrinsic",
    [np.diag([0.0, 100, 1]), np.array([[100.0, 0, 0], [0, 100, 0], [80, 45, 1]]), np.eye(4)],
    ids=["no focal length", "transposed", "4 x 4"],
)
def test_a_matrix_that_is_no_cameras_is_refused(intrinsic: np.ndarray) -> None:
    with pytest.raises(ValueError, match="front: expected an intrinsic matrix"):
        ego_to_image(intrinsic, np.eye(4), "front")


def test_resizing_moves_pixels_by_its_factors() -> None:
    intrinsic = np.array([[100.0, 0, 80], [0, 100, 45], [0, 0, 1]])
    ego2img = ego_to_image(intrinsic, np.eye(4))
    point = np.array([0.3, -0.2, 2.0, 1.0])
    u, v, depth, _ = ego2img @ point
    halved = scale_image(ego2img, 0.5, 2.0) @ point
    np.testing.assert_allclose(halved, [u / 2, v * 2, depth, 1.0])
