"""Random changes of an image's colours and shape, as timm has them."""

import warnings
from collections.abc import Callable
from typing import Any

from PIL import Image
from timm.data import auto_augment, create_transform
from torchvision import transforms
from yacs.config import CfgNode

from classification.config import get_default_config

Step = Callable[[Image.Image], Image.Image]


def build_colours(config: CfgNode) -> list[Step]:
    """Returns timm's AUG.AUTO_AUGMENT, or the AUG.COLOR_JITTER that stands in for it.

    Raises:
        ValueError: AUG.AUTO_AUGMENT is none of timm's.
    """
    aug, policy = config.AUG, config.AUG.AUTO_AUGMENT
    is_auto = policy not in ("", "none")
    if not is_auto and aug.COLOR_JITTER == 0:
        return []
    # The filter is that of rotations and shears; Pillow has no Lanczos for those.
    filter_ = "bicubic" if config.DATA.INTERPOLATION == "lanczos" else config.DATA.INTERPOLATION
    try:
        _, colours, _ = create_transform(
            config.DATA.IMG_SIZE,
            is_training=True,
            use_prefetcher=True,
            separate=True,
            color_jitter=aug.COLOR_JITTER,
            auto_augment=policy if is_auto else None,
            interpolation=filter_,
            mean=tuple(aug.MEAN),
        )
    except (AssertionError, ValueError, KeyError, IndexError) as error:
        raise ValueError(
            f"build_train_transform: expected AUG.AUTO_AUGMENT none or one of timm's, such as "
            f"rand-m9-mstd0.5-inc1, got {policy!r} ({type(error).__name__}: {error})"
        ) from error
    steps: list[Any] = colours.transforms
    has_jitter = any(isinstance(step, transforms.ColorJitter) for step in steps)
    if is_auto and not has_jitter and aug.COLOR_JITTER != get_default_config().AUG.COLOR_JITTER:
        warnings.warn("AUG.COLOR_JITTER has no effect beside AUG.AUTO_AUGMENT", stacklevel=4)
    for step in steps:
        allow_no_bits(step)
    return steps


def allow_no_bits(step: Any) -> None:
    """Lets a policy of timm posterize to no bit at all, which leaves black.

    timm 1.0 draws that at magnitude 10; Pillow refuses it from version 13 on. Can go when timm
    looks after it.

    Args:
        step: A RandAugment, AutoAugment or AugMix; all else stays as it is.
    """
    policies = [getattr(step, "ops", []), *getattr(step, "policy", [])]
    for op in (op for ops in policies for op in ops):
        if op.aug_fn is auto_augment.posterize:
            op.aug_fn = _posterize


def _posterize(image: Image.Image, num_bits: int, **arguments: Any) -> Image.Image:
    if num_bits < 1:
        return Image.new(image.mode, image.size)
    return auto_augment.posterize(image, num_bits, **arguments)
