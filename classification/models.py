"""From settings to a model, and to what a file must say so that `internimage predict` reads it."""

from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from yacs.config import CfgNode

import internimage
from classification.config import ARCH_OVERRIDES
from classification.data.transforms import build_preprocessing
from internimage import CheckpointMetadata, InternImage
from internimage.hub import find_release
from internimage.imagenet22k import NUM_22K_CLASSES

# Pixels of the image a pixel of the last stage, to a side.
TOTAL_STRIDE = 32


def build_model(config: CfgNode, *, num_classes: int) -> InternImage:
    """Builds MODEL.ARCH with random weights.

    Args:
        config: The settings; MODEL, EVAL_22K_TO_1K, TRAIN.USE_CHECKPOINT, TRAIN.SYNC_BN and the
            size of a batch are read.
        num_classes: The number of classes of the data. MODEL.NUM_CLASSES may be larger, say for a
            checkpoint with more of them.

    Returns:
        A model, (N, 3, H, W) -> (N, classes); of TYPE intern_image_meta_former it takes times
        (N, 4) and places (N, 3) as well.

    Raises:
        ValueError: No model has that name, its arguments contradict each other, it has too few
            classes, no batch norm for SYNC_BN, or batch norm over a single value.
    """
    model = internimage.create_model(
        config.MODEL.ARCH,
        drop_rate=config.MODEL.DROP_RATE,
        drop_path_rate=config.MODEL.DROP_PATH_RATE,
        drop_path_type=config.MODEL.DROP_PATH_TYPE,
        with_cp=config.TRAIN.USE_CHECKPOINT,
        num_classes=_count_logits(config, num_classes),
        **_overrides(config),
    )
    has_batch_norm = _has_batch_norm(model)
    only_evaluates = config.EVAL_MODE or config.THROUGHPUT_MODE
    if has_batch_norm and config.DATA.BATCH_SIZE == 1 and not only_evaluates:
        # Deviations over one value a channel are 0: the last map of a small image is one pixel.
        if config.DATA.IMG_SIZE <= TOTAL_STRIDE and not config.TRAIN.SYNC_BN:
            raise ValueError(
                "build_model: expected DATA.BATCH_SIZE >= 2 beside the batch norm of "
                f"{config.MODEL.ARCH} and DATA.IMG_SIZE <= {TOTAL_STRIDE}, got 1"
            )
    if config.TRAIN.SYNC_BN and not has_batch_norm:
        raise ValueError(
            "build_model: expected a model with batch norm beside TRAIN.SYNC_BN = True, got "
            f"{config.MODEL.ARCH}, which has none"
        )
    return model


def build_metadata(config: CfgNode, *, class_names: Sequence[str]) -> CheckpointMetadata:
    """Returns all that classifying an image needs beside the weights.

    Args:
        config: The settings of the run.
        class_names: The names of the data's classes; logits beyond them are called by number.
    """
    num_logits = _count_logits(config, len(class_names))
    numbers = [str(index) for index in range(len(class_names), num_logits)]
    return CheckpointMetadata(
        model_name=config.MODEL.ARCH,
        num_classes=num_logits,
        preprocessing=build_preprocessing(config),
        class_names=(*class_names, *numbers),
        overrides=_overrides(config),
    )


def _count_logits(config: CfgNode, num_classes: int) -> int:
    if config.EVAL_22K_TO_1K:
        return NUM_22K_CLASSES
    wanted = config.MODEL.NUM_CLASSES
    if wanted is None:
        return num_classes
    if wanted < num_classes:
        raise ValueError(
            f"build_model: expected MODEL.NUM_CLASSES >= classes of {config.DATA.DATASET} = "
            f"{num_classes}, got {wanted}"
        )
    return wanted


def _overrides(config: CfgNode) -> dict[str, Any]:
    """Returns what the settings change in MODEL.ARCH, as arguments of ``create_model``."""
    intern_image = config.MODEL.INTERN_IMAGE
    changed = {
        argument: intern_image[key]
        for key, argument in ARCH_OVERRIDES.items()
        if intern_image[key] is not None
    }
    release = find_release(config.MODEL.ARCH)
    is_metaformer = config.MODEL.TYPE == "intern_image_meta_former"
    if is_metaformer != (release is not None and release.metaformer):
        changed["metaformer"] = is_metaformer
    return changed


def _has_batch_norm(model: nn.Module) -> bool:
    return any(isinstance(module, _BatchNorm) for module in model.modules())
