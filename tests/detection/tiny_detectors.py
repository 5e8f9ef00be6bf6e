"""Detectors that are small enough for tests, with random weights, as checkpoints on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.tiny_models import save_checkpoint, write_config

ROOT = Path(__file__).resolve().parents[2]
BASES = ROOT / "detection" / "configs" / "_base_"
NAMES = ("ant", "bee", "cat")
# The least score that an untrained detector of three classes and a background gives to something.
THRESHOLD = 0.2

MASK_RCNN = f"""
_base_ = [
    "{BASES}/models/mask_rcnn_internimage_fpn.py",
    "{BASES}/datasets/coco_instance.py",
    "{BASES}/default_runtime.py",
]
model = dict(
    backbone=dict(arch="test_t"),
    neck=dict(in_channels=[16, 32, 64, 128], out_channels=32),
    rpn_head=dict(in_channels=32, feat_channels=32),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=32),
        bbox_head=dict(in_channels=32, fc_out_channels=64, num_classes={len(NAMES)}),
        mask_roi_extractor=dict(out_channels=32),
        mask_head=dict(
            in_channels=32, conv_out_channels=32, num_convs=1, num_classes={len(NAMES)}
        ),
    ),
    test_cfg=dict(rpn=dict(max_per_img=50), rcnn=dict(max_per_img=20)),
)
test_dataloader = dict(dataset=dict(metainfo=dict(classes={NAMES!r})))
val_dataloader = test_dataloader
"""


def tiny_config(folder: Path, text: str = MASK_RCNN, **changes: Any) -> Path:
    """Write a detector's config; return its path.

    Args:
        folder: where to write it.
        text: the config.
        **changes: settings to merge, keys with ``__`` for dots.
    """
    return write_config(folder, text, **changes)


def save_tiny_detector(
    config_path: Path, target: Path, *, with_config: bool = True, classes: Any = NAMES
) -> Path:
    """Write a checkpoint with random weights, as mmengine's runner does; return its path."""
    return save_checkpoint(config_path, target, with_config=with_config, classes=classes)
