"""From an image to the uint8 pixels of a batch, in workers, and from there to floats, on a device.

Shape legend: N images of a batch, S side of the model's square image, H W pixels of an image.
"""

import functools
import random
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from timm.data.random_erasing import RandomErasing
from timm.data.transforms import RandomResizedCropAndInterpolation
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import InterpolationMode
from yacs.config import CfgNode

from classification.config import get_default_config
from classification.data.colours import build_colours
from classification.data.source import Kind
from internimage import Preprocessing
from internimage.image import normalize, resize_and_crop

CROP_RATIO = (3 / 4, 4 / 3)
"""Width over height of a training crop, as in the Inception networks and ever since."""

FAST_FILTERS = ("bilinear", "bicubic")
"""What PyTorch resizes uint8 images with, four times as fast as Pillow and within 2/255 of it."""

NOT_FOR_DIGITS = ("HFLIP", "CROP_SCALE", "AUTO_AUGMENT", "COLOR_JITTER")


def build_preprocessing(config: CfgNode) -> Preprocessing:
    """Returns what is done to an image before the model: the part without randomness."""
    return Preprocessing(
        image_size=config.DATA.IMG_SIZE,
        mean=tuple(config.AUG.MEAN),
        std=tuple(config.AUG.STD),
        interpolation=config.DATA.INTERPOLATION,
    )


def build_train_transform(config: CfgNode, *, kind: Kind) -> Callable[[Tensor], Tensor]:
    """Builds the augmentation of one training image.

    Args:
        config: The settings; DATA.IMG_SIZE, DATA.INTERPOLATION and AUG are read.
        kind: Photos are cropped, mirrored and changed in colour, digits are not.

    Returns:
        A transform from (3, H, W) to (S, S, 3), uint8. It draws from the random states of Python,
        NumPy and PyTorch.

    Raises:
        ValueError: AUG.AUTO_AUGMENT is none of timm's.
    """
    if kind == "digits":
        defaults = get_default_config().AUG
        for key in NOT_FOR_DIGITS:
            if config.AUG[key] != defaults[key]:
                warnings.warn(
                    f"AUG.{key} has no effect on digits: a cropped or mirrored digit is no digit",
                    stacklevel=2,
                )
        return DigitAugmentation(config)
    return PhotoAugmentation(config)


def build_test_transform(config: CfgNode) -> Callable[[Image.Image], Tensor]:
    """Builds the transform of one test image: with TEST.CROP what ``internimage predict`` does.

    Returns:
        A transform from an RGB image to (S, S, 3), uint8. With AUG.RANDOM_RESIZED_CROP it draws
        from Python's random state.
    """
    size, name = config.DATA.IMG_SIZE, config.DATA.INTERPOLATION
    to_square: Callable[[Image.Image], Image.Image]
    if config.TEST.CROP:
        to_square = functools.partial(resize_and_crop, preprocessing=build_preprocessing(config))
    elif config.AUG.RANDOM_RESIZED_CROP:
        to_square = RandomResizedCropAndInterpolation(
            size, scale=tuple(config.AUG.CROP_SCALE), ratio=CROP_RATIO, interpolation=name
        )
    else:
        to_square = transforms.Resize((size, size), InterpolationMode(name))
    return lambda image: _from_pillow(to_square(image))


def build_finish_test(config: CfgNode) -> Callable[[Tensor], Tensor]:
    """Builds the last step of test images: (N, 3, S, S) uint8 to normalised float32."""
    return functools.partial(normalize, mean=tuple(config.AUG.MEAN), std=tuple(config.AUG.STD))


def build_finish_train(config: CfgNode) -> Callable[[Tensor], Tensor]:
    """Builds the last step of training images: normalises, then erases rectangles.

    Returns:
        A function from (N, 3, S, S) uint8 to float32 on the same device. It draws from the random
        states of Python and of PyTorch on that device.
    """
    aug, to_floats = config.AUG, build_finish_test(config)
    if aug.REPROB == 0:
        return to_floats

    def finish(pixels: Tensor) -> Tensor:
        erase = RandomErasing(
            aug.REPROB, mode=aug.REMODE, max_count=aug.RECOUNT, device=pixels.device
        )
        return erase(to_floats(pixels))

    return finish


class PhotoAugmentation:
    """Random crop, mirroring and colours, as timm's ``create_transform`` up to uint8.

    The same random numbers make the same image, but for rounding: the crop is resized by PyTorch.

    Args:
        config: The settings.
    """

    def __init__(self, config: CfgNode) -> None:
        self.size, self.filter = config.DATA.IMG_SIZE, config.DATA.INTERPOLATION
        self.scale = tuple(config.AUG.CROP_SCALE)
        self.flip_probability = config.AUG.HFLIP
        fill = [round(255 * value) for value in config.AUG.MEAN]
        self.steps = [*_affine(config, fill=fill), *build_colours(config)]

    def __call__(self, pixels: Tensor) -> Tensor:
        """Augments an image, (3, H, W) -> (S, S, 3)."""
        crop = self._resize(_random_crop(pixels, self.scale))
        if torch.rand(1).item() < self.flip_probability:
            crop = crop.flip(-1)
        if not self.steps:
            return crop.permute(1, 2, 0).contiguous()
        image = _to_pillow(crop)
        for step in self.steps:
            image = step(image)
        return _from_pillow(image)

    def _resize(self, pixels: Tensor) -> Tensor:
        size = (self.size, self.size)
        if self.filter in FAST_FILTERS:
            # Neighbouring colours stay neighbours, which is how Pillow has them.
            batch = pixels[None].contiguous(memory_format=torch.channels_last)
            return F.interpolate(batch, size, mode=self.filter, antialias=True)[0]
        resampling = Image.Resampling[self.filter.upper()]
        return _from_pillow(_to_pillow(pixels).resize(size, resampling)).permute(2, 0, 1)


class DigitAugmentation:
    """Scales an image to S x S, then turns, moves, scales and shears it by random amounts.

    Args:
        config: The settings.
    """

    def __init__(self, config: CfgNode) -> None:
        size = config.DATA.IMG_SIZE
        resize = transforms.Resize((size, size), InterpolationMode(config.DATA.INTERPOLATION))
        self.transform = transforms.Compose([resize, *_affine(config, fill=[0, 0, 0])])

    def __call__(self, pixels: Tensor) -> Tensor:
        """Augments an image, (3, H, W) -> (S, S, 3)."""
        return _from_pillow(self.transform(_to_pillow(pixels)))


def _affine(config: CfgNode, *, fill: list[int]) -> list[Callable[[Image.Image], Image.Image]]:
    """Returns the random affine map of AUG, or nothing where it would be none."""
    aug = config.AUG
    if not any((aug.ROTATE, aug.TRANSLATE, aug.SCALE, aug.SHEAR)):
        return []
    return [
        transforms.RandomAffine(
            degrees=aug.ROTATE,
            translate=(aug.TRANSLATE, aug.TRANSLATE),
            scale=(1 - aug.SCALE, 1 + aug.SCALE),
            shear=aug.SHEAR,
            interpolation=InterpolationMode.BILINEAR,
            fill=fill,
        )
    ]


def _random_crop(pixels: Tensor, scale: tuple[float, float]) -> Tensor:
    """Returns a random part, (3, H, W) -> (3, h, w)."""
    crop = RandomResizedCropAndInterpolation.get_params(pixels, scale, CROP_RATIO)
    top, left, height, width = crop
    # timm rounds the sides of a crop of an image of a few pixels to 0.
    height, width = max(height, 1), max(width, 1)
    top, left = min(top, pixels.shape[1] - height), min(left, pixels.shape[2] - width)
    return pixels[:, top : top + height, left : left + width]


def _to_pillow(pixels: Tensor) -> Image.Image:
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


def _from_pillow(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image))


def seed_image(*numbers: Any) -> None:
    """Seeds Python, NumPy and PyTorch's CPU for one image, in a few microseconds.

    Args:
        numbers: What the random numbers of the image depend on.
    """
    random.seed(" ".join(map(str, numbers)))  # Python hashes texts: neighbours are unrelated
    state = random.getrandbits(64)
    np.random.seed(state % 2**32)
    # Not torch.manual_seed: that queues a call for every CUDA device as well.
    torch.default_generator.manual_seed(state % 2**63)
