"""Poses and cameras as NumPy float64 matrices: what readers of data sets need.

A pose (4, 4) moves points of its own frame into another one: ``ego2global``, ``camera2ego``. A
quaternion is (w, x, y, z).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

Matrix = NDArray[np.float64]

_RIGID_TOLERANCE = 1e-3
"""How far R R^T and the length of a quaternion may be from 1: data sets round, the worst to four
digits."""


def numbers_of(value: ArrayLike, name: str) -> Matrix:
    """Return a value of a file as float64, of any shape.

    Raises:
        ValueError: it holds something else than numbers, or rows of unlike length.
    """
    try:
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):  # the last of whole numbers beyond 1e308
        # NumPy's own text speaks of sequences and inhomogeneous shapes. The value in one line,
        # which an array's text is not.
        shown = " ".join(repr(value).split())[:60]
        raise ValueError(f"{name}: expected numbers in rows of one length, got {shown}") from None


def check_rigid(pose: ArrayLike, name: str) -> Matrix:
    """Return a pose (4, 4) as float64, if it is a rotation and a translation.

    Raises:
        ValueError: it has another shape, holds no finite numbers, stretches, shears or mirrors.
    """
    matrix = numbers_of(pose, name)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise ValueError(f"{name}: expected a pose of 4 x 4 finite numbers, got {matrix.tolist()}")
    rotation = matrix[:3, :3]
    with np.errstate(over="ignore", invalid="ignore"):  # of numbers whose squares are beyond 1e308
        error = np.abs(rotation @ rotation.T - np.eye(3)).max()
        determinant = np.linalg.det(rotation)
    # R R^T = 1 holds of a mirrored frame too; only the determinant tells. `not`, so that a NaN is
    # refused as well.
    if not (error <= _RIGID_TOLERANCE and determinant > 0):
        raise ValueError(
            f"{name}: expected a rigid pose (R R^T = 1, det R = 1), got R R^T - 1 up to {error:.2g}"
            f" and det R = {determinant:.3g}"
        )
    if np.abs(matrix[3] - [0, 0, 0, 1]).max() > _RIGID_TOLERANCE:
        raise ValueError(f"{name}: expected a pose with the last row 0 0 0 1, got {matrix[3]}")
    return matrix


def pose_of(rotation: ArrayLike, translation: ArrayLike, name: str = "pose_of") -> Matrix:
    """Return the pose (4, 4) of a rotation and a translation.

    Args:
        rotation: matrix (3, 3) or quaternion (4,) of length 1.
        translation: (3,) in metres.
        name: of the pose, for errors.

    Raises:
        ValueError: the shapes are others, the rotation is none, or something is no number.
    """
    turn = numbers_of(rotation, name)
    if turn.shape == (4,):
        length = np.linalg.norm(turn)
        # Another length says that these are other numbers than a rotation. `not <=` and not `>`, so
        # that a NaN is refused as well.
        if not abs(length - 1) <= _RIGID_TOLERANCE:
            raise ValueError(
                f"{name}: expected a quaternion (w, x, y, z) of length 1, got {turn} of length "
                f"{length:.4g}"
            )
        turn = Rotation.from_quat(turn[[1, 2, 3, 0]]).as_matrix()  # SciPy has w last
    offset = numbers_of(translation, name)
    if turn.shape != (3, 3) or offset.shape != (3,):
        raise ValueError(
            f"{name}: expected a rotation of shape (3, 3) or (4,) and a translation of shape (3,), "
            f"got {turn.shape} and {offset.shape}"
        )
    pose = np.eye(4)
    pose[:3, :3] = turn
    pose[:3, 3] = offset
    return check_rigid(pose, name)


def quaternion_of(rotation: ArrayLike) -> Matrix:
    """Return the quaternion (4,), w first and not negative, of a rotation (3, 3)."""
    quaternion = Rotation.from_matrix(rotation).as_quat()[[3, 0, 1, 2]]
    # q and -q are the same rotation: one of them is chosen, so that it can be compared.
    return quaternion if quaternion[0] >= 0 else -quaternion


def yaw_of(pose: ArrayLike) -> float:
    """Return the heading of a pose (4, 4) or a rotation (3, 3), in rad within [0, 2 pi)."""
    matrix = np.asarray(pose, dtype=np.float64)
    # Where the x axis, forward, points on the ground; BEVFormer's readings run from 0 as well.
    return float(np.arctan2(matrix[1, 0], matrix[0, 0]) % (2 * np.pi))


def ego_to_image(intrinsic: ArrayLike, camera2ego: ArrayLike, name: str = "ego_to_image") -> Matrix:
    """Return ego2img (4, 4): ego metres to (u d, v d, d, 1), u and v in pixels of the raw image.

    Args:
        intrinsic: (3, 3), pixels.
        camera2ego: pose of the camera (4, 4): x right, y down, z along its view.
        name: of the camera, for errors.

    Raises:
        ValueError: the intrinsic matrix has another shape, no focal length or another last row, or
            the pose is not rigid.
    """
    k = numbers_of(intrinsic, name)
    # A transposed matrix has its principal point in the last row.
    if k.shape != (3, 3) or not (
        np.isfinite(k).all() and min(k[0, 0], k[1, 1]) > 0 and np.array_equal(k[2], [0, 0, 1])
    ):
        raise ValueError(
            f"{name}: expected an intrinsic matrix (3, 3) with focal lengths above 0 and the last "
            f"row 0 0 1, got {k.tolist()}"
        )
    view = np.eye(4)
    view[:3, :3] = k
    return view @ np.linalg.inv(check_rigid(camera2ego, name))


def scale_image(ego2img: ArrayLike, scale_x: float, scale_y: float) -> Matrix:
    """Return ego2img (..., 4, 4) for images that are resized by these factors."""
    scaled = np.array(ego2img, dtype=np.float64)
    # u d and v d grow, d stays. No shift by half a pixel: u and v count from the image's edge.
    scaled[..., 0, :] *= scale_x
    scaled[..., 1, :] *= scale_y
    return scaled
