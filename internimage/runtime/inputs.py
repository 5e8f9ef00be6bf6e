"""An image as the input of an exported model, the way its metadata say.

Shape legend: N batch, H W of the model's input in pixels.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from PIL import Image

from internimage.image import resize_and_cut
from internimage.runtime.checks import OPENCV_FILTER
from internimage.runtime.metadata import Metadata
from internimage.runtime.resizing import resize_image, size_within


@dataclasses.dataclass(frozen=True, kw_only=True)
class Input:
    """One image, ready for the model.

    Args:
        pixels: (3, H, W), float32, normalised, red-green-blue.
        size: height and width of the part that holds the image; what is right of it and below is
            padding.
        original: height and width of the image before it was resized.
    """

    pixels: np.ndarray
    size: tuple[int, int]
    original: tuple[int, int]


def prepare(image: np.ndarray, metadata: Metadata) -> Input:
    """Resize, normalise and pad an image.

    Args:
        image: of any size, uint8, red-green-blue, height first.
        metadata: of the model.

    Raises:
        ValueError: the model cannot take an image of this size.
    """
    resized = _resize(image, metadata)
    size = (resized.shape[0], resized.shape[1])
    mean, std = (np.array(values, np.float32) for values in (metadata.mean, metadata.std))
    pixels = (resized.astype(np.float32) - mean) / std  # (H, W, 3)
    pixels = _pad(np.ascontiguousarray(pixels.transpose(2, 0, 1)), metadata)  # (3, H, W)
    _check_size(image, pixels, metadata)
    return Input(pixels=pixels, size=size, original=(image.shape[0], image.shape[1]))


def feeds(pixels: np.ndarray, metadata: Metadata, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """Return the inputs of a model for one image.

    Args:
        pixels: (3, H, W), float32.
        metadata: of the model. One that takes several images a run gets this one several times.
        size: height and width of the part that holds the image.
    """
    count = metadata.batch or 1
    found = {"input": np.repeat(pixels[None], count, axis=0)}  # (N, 3, H, W)
    if metadata.task == "detection":
        # Where the padding begins: boxes are cut off there.
        found["image_size"] = np.repeat(np.array([size], dtype=np.int64), count, axis=0)
    return found


def _resize(image: np.ndarray, metadata: Metadata) -> np.ndarray:
    settings = metadata.resize
    if settings["mode"] != "keep_ratio":
        height, width = settings["size"]
        if settings["mode"] == "exact":
            return _filtered(image, (height, width), settings["filter"])
        cut = resize_and_cut(
            Image.fromarray(image),
            settings["shorter_side"],
            (height, width),
            interpolation=settings["filter"],
        )
        return np.asarray(cut)
    size = (image.shape[0], image.shape[1])
    if settings["scale"] is not None:
        # A window is a least size: larger images hold several.
        limits = None if metadata.window else settings["pad_to"]
        size = size_within(size, settings["scale"], limits)
        image = _filtered(image, size, settings["filter"])
    # A second time, as ResizeToMultiple behind Resize does: both round, and one step would differ.
    multiple = settings["multiple_of"]
    if multiple is not None:
        height, width = (round_up(side, multiple) for side in size)
        image = _filtered(image, (height, width), settings["filter"])
    return image


def _filtered(image: np.ndarray, size: tuple[int, int], name: str) -> np.ndarray:
    if name == OPENCV_FILTER:
        return resize_image(image, size)
    return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling[name.upper()]))


def _pad(pixels: np.ndarray, metadata: Metadata) -> np.ndarray:
    """Pad on the right and at the bottom, after normalising."""
    settings = metadata.resize
    height, width = pixels.shape[1:]
    divisor = settings["pad_divisor"] or 1
    least_height, least_width = settings["pad_to"] or (None, None)
    bottom = max(round_up(height, divisor), least_height or 0) - height
    right = max(round_up(width, divisor), least_width or 0) - width
    if not (bottom or right):
        return pixels
    # OpenMMLab's preprocessors pad what they have normalised: 0 is the mean's colour, not black.
    value = settings["pad_value"] or 0
    return np.pad(pixels, ((0, 0), (0, bottom), (0, right)), constant_values=value)


def _check_size(image: np.ndarray, pixels: np.ndarray, metadata: Metadata) -> None:
    if metadata.window:  # it is the windows that have the input's size, not the image
        return
    found = pixels.shape[1:]
    if any(want not in (None, got) for want, got in zip(metadata.input_size, found, strict=True)):
        wanted = "x".join("any" if side is None else str(side) for side in metadata.input_size)
        raise ValueError(
            f"prepare: expected an image that becomes {wanted} (height x width), which is all that "
            f"{metadata.model} takes, got one of {image.shape[0]}x{image.shape[1]}, which becomes "
            f"{found[0]}x{found[1]}; export with --dynamic height width for images of any size"
        )


def round_up(side: int, divisor: int) -> int:
    """Return the least multiple of ``divisor`` that is not below ``side``."""
    return -(-side // divisor) * divisor
