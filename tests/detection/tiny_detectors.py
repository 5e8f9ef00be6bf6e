"""Detectors that are small enough for tests, with random weights, as checkpoints on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

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
    """Write a config whose images are 128 pixels wide; return its path.

    Args:
        folder: where to write it.
        text: the config.
        **changes: settings to merge, keys with ``__`` for dots.
    """
    path = folder / "base.py"
    path.write_text(text)
    config = Config.fromfile(path)
    for step in config.test_dataloader.dataset.pipeline:
        if step.type == "Resize":
            step.scale = (128, 96)
    config.merge_from_dict({key.replace("__", "."): value for key, value in changes.items()})
    target = folder / "config.py"
    config.dump(target)
    return target


def save_tiny_detector(
    config_path: Path, target: Path, *, with_config: bool = True, classes: Any = NAMES
) -> Path:
    """Write a checkpoint with random weights, as mmengine's runner does; return its path."""
    config = Config.fromfile(config_path)
    init_default_scope("mmdet")
    torch.manual_seed(0)
    model = MODELS.build(config.model)
    meta: dict[str, Any] = {"epoch": 1, "iter": 7}
    if with_config:
        meta["cfg"] = config.pretty_text
    if classes is not None:
        meta["dataset_meta"] = {"classes": classes, "palette": [(220, 20, 60)] * len(classes)}
    torch.save({"meta": meta, "state_dict": model.state_dict(), "message_hub": {}}, target)
    return target
