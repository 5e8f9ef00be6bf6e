"""Transforms of the images of all cameras of a frame, together with their matrices.

A frame is the dictionary of ``DrivingDataset.load_frames``; ``img`` is a list of N images
(H, W, 3) BGR, 0-255, uint8 or float32. N cameras.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import mmcv
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet.datasets.transforms import PhotoMetricDistortion
from mmengine.registry import TRANSFORMS

from internimage.integrations.openmmlab.driving.poses import scale_image
from internimage.integrations.openmmlab.driving.sample import DrivingSample

_MIDDLE = (0.3, 0.7)  # of an image's sides; nuScenes and Argoverse 2 keep to 0.45-0.55
_META = ("token", "scene", "prev", "timestamp", "cameras", "img_paths")


@TRANSFORMS.register_module()
class LoadDrivingImages(BaseTransform):
    """Reads the images of all cameras and checks that the calibration is made for them.

    Raises:
        FileNotFoundError: The image of a camera is missing.
        ValueError: A file is no image, or the calibration is for another size.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add ``img`` and ``scale_factors`` (N, 2), ones."""
        images = []
        sizes = results.get("image_sizes") or [None] * len(results["cameras"])
        for camera, path, size, matrix in zip(
            results["cameras"], results["img_paths"], sizes, results["ego2img"], strict=True
        ):
            if not Path(path).is_file():
                raise FileNotFoundError(
                    f"LoadDrivingImages: expected the image of {camera} in frame "
                    f"{results['token']}, got no file {path}"
                )
            # A tag that turns the picture is ignored: the calibration is of the pixels as stored.
            try:
                image = mmcv.imread(path, flag="color_ignore_orientation")
            except cv2.error:  # of an empty file; of any other that is none there is no image
                image = None
            if image is None:
                raise ValueError(
                    f"LoadDrivingImages: expected an image of {camera} in frame "
                    f"{results['token']}, got {path}"
                )
            _check_calibration(results["token"], camera, path, image.shape[:2], size, matrix)
            images.append(image)
        results["img"] = images
        results["scale_factors"] = np.ones((len(images), 2))
        return results


def _check_calibration(
    token: str,
    camera: str,
    path: str,
    shape: tuple[int, int],
    calibrated: tuple[int, int] | None,
    ego2img: np.ndarray,
) -> None:
    """Compare the size of an image with its calibration.

    Where the calibration does not say a size, its principal point has to lie near the middle of the
    image, as those of all rigs do: for an image of twice or half the size it would not.

    Raises:
        ValueError: They do not fit.
    """
    height, width = shape
    if calibrated is not None and tuple(calibrated) != (height, width):
        raise ValueError(
            f"LoadDrivingImages: expected an image of {calibrated[1]}x{calibrated[0]} pixels, for "
            f"which {camera} is calibrated, got {width}x{height} in frame {token}, {path}"
        )
    # The rows of K R are orthogonal but for the principal point, which is what they share with
    # the last one.
    rows = ego2img[:3, :3]  # K R
    x, y = rows[:2] @ rows[2] / (rows[2] @ rows[2])
    low, high = _MIDDLE
    if not (low * width < x < high * width and low * height < y < high * height):
        raise ValueError(
            f"LoadDrivingImages: expected the principal point of {camera} near the middle of the "
            f"image of {width}x{height} pixels, got ({x:.1f}, {y:.1f}) in frame {token}: the "
            f"calibration is for another size than that of {path}"
        )


@TRANSFORMS.register_module()
class DrivingPhotometricDistortion(BaseTransform):
    """Changes brightness, contrast, saturation, hue and channels of each image by itself.

    It stands before the normalisation, on values of 0-255.

    Args:
        **kwargs: those of mmdet's ``PhotoMetricDistortion``.
    """

    def __init__(self, **kwargs: Any) -> None:
        self.distortion = PhotoMetricDistortion(**kwargs)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Replace each image by a changed one, float32."""
        # mmdet's transform takes a dictionary with one image, copies it as float32 and draws its
        # numbers anew for each.
        results["img"] = [
            self.distortion.transform({"img": image})["img"] for image in results["img"]
        ]
        return results


@TRANSFORMS.register_module()
class ResizeDrivingImages(BaseTransform):
    """Resizes the images of all cameras to one size, and their matrices with them.

    Args:
        size: (H, W) in pixels; the ratio of an image's sides is not kept.

    Raises:
        ValueError: A side is below 1.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        if len(size) != 2 or min(size) < 1:
            raise ValueError(f"ResizeDrivingImages: expected a size (H, W) >= 1, got {size}")
        self.size = (int(size[0]), int(size[1]))

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Replace ``img`` and ``ego2img``, and multiply ``scale_factors`` by (x, y)."""
        height, width = self.size
        # (N, 2), x and y
        scales = np.array([(width / img.shape[1], height / img.shape[0]) for img in results["img"]])
        results["img"] = [
            # OpenCV has the width first. It resizes between edges, as scale_image does.
            cv2.resize(img, (width, height), interpolation=cv2.INTER_LINEAR)
            if img.shape[:2] != self.size
            else img
            for img in results["img"]
        ]
        results["ego2img"] = np.stack(
            # scales.T: the N factors of x, then those of y.
            [scale_image(*both) for both in zip(results["ego2img"], *scales.T, strict=True)]
        )
        results["scale_factors"] = results["scale_factors"] * scales
        return results


@TRANSFORMS.register_module()
class ScaleMatricesByPadding(BaseTransform):
    """Stretches the matrices of the cameras as if padding stretched the images.

    A fault of the original, which its released checkpoints were trained with and need: points come
    to lie beside what shows them, of vectorised maps by up to a twentieth of an image's width, of
    lanes by up to an eightieth of its height. It stands behind resizing.

    Args:
        size_divisor: the images will be padded to multiples of it.
    """

    def __init__(self, size_divisor: int = 32) -> None:
        self.size_divisor = size_divisor

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Replace ``ego2img``."""
        matrices = np.array(results["ego2img"], np.float64)
        # Front images stand upright in the files, so that each camera may have its own size.
        for camera, image in enumerate(results["img"]):
            # Rounded up to a multiple, as a share of what is there.
            height, width = (
                -(-side // self.size_divisor) * self.size_divisor / side for side in image.shape[:2]
            )
            matrices[camera] = scale_image(matrices[camera], width, height)
        results["ego2img"] = matrices
        return results


@TRANSFORMS.register_module()
class PackDrivingInputs(BaseTransform):
    """Makes a tensor of the images and a ``DrivingSample`` of all else; the last transform.

    ``gt_*`` and ``mask_*`` become data fields, arrays as tensors, of the supervised frame.

    Args:
        meta_keys: further keys of a frame to keep among the meta data.

    Raises:
        ValueError: The images are not all of one size.
    """

    def __init__(self, meta_keys: tuple[str, ...] = ()) -> None:
        self.meta_keys = (*_META, *meta_keys)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Return ``inputs`` (N, 3, H, W) uint8 or float32 BGR, and ``data_samples``."""
        images = results["img"]
        shapes = {image.shape[:2] for image in images}
        if len(shapes) != 1:
            raise ValueError(
                f"PackDrivingInputs: expected images of one size, got {sorted(shapes)} in frame "
                f"{results['token']}; ResizeDrivingImages makes them alike"
            )
        sample = DrivingSample(metainfo={key: results[key] for key in self.meta_keys})
        sample.set_metainfo(
            {
                "image_shape": images[0].shape[:2],
                "ego2img": np.asarray(results["ego2img"], np.float64),
                "ego2global": np.asarray(results["ego2global"], np.float64),
                "scale_factors": results["scale_factors"],
            }
        )
        if "can_bus" in results:
            sample.set_metainfo({"can_bus": np.asarray(results["can_bus"], np.float32)})
        for key, value in results.items():
            if key.startswith(("gt_", "mask_")):
                if isinstance(value, np.ndarray):
                    # torch takes no negative strides, which flipped arrays have.
                    value = torch.from_numpy(np.ascontiguousarray(value))
                sample.set_field(value, key)
        # Still BGR and not normalised: BEVDataPreprocessor does both on the device.
        stacked = np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2))  # (N, 3, H, W)
        return {"inputs": torch.from_numpy(stacked), "data_samples": sample}
