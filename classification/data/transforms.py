"""From an image to a normalised tensor, for training and for testing."""

import functools
from collections.abc import Callable

import torch
from PIL import Image
from timm.data.random_erasing import RandomErasing
from torchvision import transforms
from torchvision.transforms import InterpolationMode
from yacs.config import CfgNode

from internimage import Preprocessing
from internimage.image import preprocess


def build_preprocessing(config: CfgNode) -> Preprocessing:
    """Returns what is done to an image before the model: the part without randomness."""
    return Preprocessing(
        image_size=config.DATA.IMG_SIZE,
        mean=tuple(config.AUG.MEAN),
        std=tuple(config.AUG.STD),
        interpolation=config.DATA.INTERPOLATION,
    )


def build_transform(config: CfgNode, *, train: bool) -> Callable[[Image.Image], torch.Tensor]:
    """Builds the transform of one image.

    Testing does what ``internimage predict`` does. Training scales the image to IMG_SIZE, then
    turns, moves, scales and shears it by random amounts and erases rectangles. There are no flips:
    a mirrored digit is no digit.

    Args:
        config: The settings; DATA.IMG_SIZE, DATA.INTERPOLATION and AUG are read.
        train: With random augmentation or without.

    Returns:
        A transform from an RGB image to a (3, H, W) tensor.
    """
    if not train:
        return functools.partial(preprocess, preprocessing=build_preprocessing(config))
    aug, size = config.AUG, config.DATA.IMG_SIZE
    return transforms.Compose(
        [
            transforms.Resize((size, size), InterpolationMode(config.DATA.INTERPOLATION)),
            transforms.RandomAffine(
                degrees=aug.ROTATE,
                translate=(aug.TRANSLATE, aug.TRANSLATE),
                scale=(1 - aug.SCALE, 1 + aug.SCALE),
                shear=aug.SHEAR,
                interpolation=InterpolationMode.BILINEAR,
            ),
            transforms.ToTensor(),
            transforms.Normalize(aug.MEAN, aug.STD),
            RandomErasing(aug.REPROB, mode=aug.REMODE, max_count=aug.RECOUNT, device="cpu"),
        ]
    )
