"""From settings to a model, and to what a file must say so that `internimage predict` reads it."""

from collections.abc import Sequence
from typing import Any

from yacs.config import CfgNode

import internimage
from classification.config import ARCH_OVERRIDES
from classification.data.transforms import build_preprocessing
from internimage import CheckpointMetadata, InternImage


def build_model(config: CfgNode, *, num_classes: int) -> InternImage:
    """Builds MODEL.ARCH with random weights.

    Args:
        config: The settings; MODEL and TRAIN.USE_CHECKPOINT are read.
        num_classes: The number of logits.

    Returns:
        A model, (N, 3, H, W) -> (N, num_classes).

    Raises:
        ValueError: No model has that name, or its arguments contradict each other.
    """
    return internimage.create_model(
        config.MODEL.ARCH,
        drop_rate=config.MODEL.DROP_RATE,
        drop_path_rate=config.MODEL.DROP_PATH_RATE,
        with_cp=config.TRAIN.USE_CHECKPOINT,
        num_classes=num_classes,
        **_overrides(config),
    )


def build_metadata(config: CfgNode, *, class_names: Sequence[str]) -> CheckpointMetadata:
    """Returns all that classifying an image needs beside the weights.

    Args:
        config: The settings of the run.
        class_names: The name of each logit.
    """
    return CheckpointMetadata(
        model_name=config.MODEL.ARCH,
        num_classes=len(class_names),
        preprocessing=build_preprocessing(config),
        class_names=tuple(class_names),
        overrides=_overrides(config),
    )


def _overrides(config: CfgNode) -> dict[str, Any]:
    """Returns what MODEL.INTERN_IMAGE changes in MODEL.ARCH, as arguments of ``create_model``."""
    intern_image = config.MODEL.INTERN_IMAGE
    return {
        argument: intern_image[key]
        for key, argument in ARCH_OVERRIDES.items()
        if intern_image[key] is not None
    }
