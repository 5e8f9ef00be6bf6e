"""Segmentors that are small enough for tests, with random weights, as checkpoints on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from tests.segmentation.small_segmentors import mask2former_head
from tests.tiny_models import save_checkpoint, write_config

ROOT = Path(__file__).resolve().parents[2]
BASES = ROOT / "segmentation" / "configs" / "_base_"
NAMES = ("ant", "bee", "cat", "dog", "eel")
PALETTE = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (200, 200, 0), (0, 200, 200)]

UPERNET = f"""
_base_ = [
    "{BASES}/models/upernet_internimage.py",
    "{BASES}/datasets/ade20k.py",
    "{BASES}/default_runtime.py",
]
model = dict(
    backbone=dict(arch="test_t"),
    decode_head=dict(in_channels=[16, 32, 64, 128], channels=16, num_classes={len(NAMES)}),
    auxiliary_head=dict(in_channels=64, channels=8, num_classes={len(NAMES)}),
)
test_dataloader = dict(dataset=dict(type="BaseSegDataset", metainfo=dict(classes={NAMES!r})))
"""

SEGFORMER = f"""
_base_ = [
    "{BASES}/models/segformer_internimage.py",
    "{BASES}/datasets/ade20k.py",
    "{BASES}/default_runtime.py",
]
model = dict(
    backbone=dict(arch="test_t"),
    decode_head=dict(in_channels=[16, 32, 64, 128], channels=16, num_classes={len(NAMES)}),
)
test_dataloader = dict(dataset=dict(type="BaseSegDataset", metainfo=dict(classes={NAMES!r})))
"""
MASK2FORMER = f"""
_base_ = [
    "{BASES}/models/segmentor.py",
    "{BASES}/datasets/ade20k.py",
    "{BASES}/default_runtime.py",
]
custom_imports = dict(imports=["internimage.integrations.openmmlab.segmentation"])
model = dict(backbone=dict(arch="test_t"), decode_head={mask2former_head()!r})
test_dataloader = dict(dataset=dict(type="BaseSegDataset", metainfo=dict(classes={NAMES!r})))
"""
SEGMENTORS = {"upernet": UPERNET, "segformer": SEGFORMER, "mask2former": MASK2FORMER}


def tiny_config(folder: Path, text: str = UPERNET, **changes: Any) -> Path:
    """Write a segmentor's config; return its path.

    Args:
        folder: where to write it.
        text: the config.
        **changes: settings to merge, keys with ``__`` for dots.
    """
    return write_config(folder, text, **changes)


def save_tiny_segmentor(
    config_path: Path,
    target: Path,
    *,
    with_config: bool = True,
    classes: Any = NAMES,
    palette: Any = PALETTE,
) -> Path:
    """Write a checkpoint with random weights, as mmengine's runner does; return its path."""
    return save_checkpoint(
        config_path, target, with_config=with_config, classes=classes, palette=palette
    )


def make_pixels() -> np.ndarray:
    """Return an image of blue, green and red (90, 120, 3) with large structures."""
    generator = np.random.default_rng(0)
    return cv2.resize(generator.integers(0, 255, (9, 12, 3), dtype=np.uint8), (120, 90))
