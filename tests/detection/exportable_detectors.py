"""Detectors that are small enough to be exported in tests, and what mmdet finds with them.

Scores of untrained heads are nearly equal, and which of two equals is better depends on rounding:
the last layers are drawn anew, so that scores spread.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from torch import Tensor, nn

import internimage.integrations.openmmlab.detection  # noqa: F401  (registers the models)
from tests.detection.small_dino import small_config
from tests.detection.tiny_detectors import BASES, MASK_RCNN, NAMES, tiny_config

LAST_LAYERS = {
    **dict.fromkeys(("fc_cls", "rpn_cls", "conv_logits", "cls_branches"), 0.3),
    **dict.fromkeys(("fc_reg", "rpn_reg", "reg_branches"), 0.05),
}
"""Parts of names and the standard deviation of their weights: boxes enlarge rounding as well."""

BOX_HEADS = dict(
    type="ConvFCBBoxHead",
    num_shared_convs=1,
    num_shared_fcs=1,
    in_channels=32,
    conv_out_channels=16,
    fc_out_channels=64,
    roi_feat_size=7,
    num_classes=len(NAMES),
    reg_class_agnostic=False,
    norm_cfg=dict(type="BN"),
    loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=False),
)

CASCADE = f"""
_base_ = [
    "{BASES}/models/cascade_mask_rcnn_internimage_fpn.py",
    "{BASES}/datasets/coco_instance.py",
    "{BASES}/default_runtime.py",
]
model = dict(
    backbone=dict(arch="test_t"),
    neck=dict(in_channels=[16, 32, 64, 128], out_channels=32),
    rpn_head=dict(in_channels=32, feat_channels=32),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=32),
        bbox_head=[
            dict({BOX_HEADS!r}, bbox_coder=dict(
                type="DeltaXYWHBBoxCoder", target_means=[0.0] * 4, target_stds=stds))
            for stds in ([0.1, 0.1, 0.2, 0.2], [0.05, 0.05, 0.1, 0.1], [0.03, 0.03, 0.07, 0.07])
        ],
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

DINO = f"""
_base_ = ["{BASES}/datasets/coco_detection.py", "{BASES}/default_runtime.py"]
custom_imports = dict(imports=["internimage.integrations.openmmlab.detection"])
model = dict(
    data_preprocessor=dict(
        type="DetDataPreprocessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=32,
    ),
    **{small_config().to_dict()!r},
)
test_dataloader = dict(dataset=dict(metainfo=dict(classes={NAMES!r})))
val_dataloader = test_dataloader
"""

TEXTS = {"mask_rcnn": MASK_RCNN, "cascade": CASCADE, "dino": DINO}

TWO_LEVELS = dict(
    model__backbone__out_indices=(2, 3),
    model__neck__in_channels=[64, 128],
    model__neck__kernel_size=3,
    model__neck__num_outs=2,
    model__num_feature_levels=2,
    model__encoder__layer_cfg__self_attn_cfg__num_levels=2,
    model__decoder__layer_cfg__cross_attn_cfg__num_levels=2,
    model__decoder__num_layers=1,
)
"""Changes that make of DINO what is traced in half the time where sizes are open."""


def save_detector(folder: Path, kind: str, **changes: Any) -> tuple[Path, Path]:
    """Write a detector's config and a checkpoint with spread scores; return their paths.

    Args:
        folder: where to.
        kind: of :data:`TEXTS`.
        **changes: settings to merge, keys with ``__`` for dots.
    """
    config = tiny_config(folder, TEXTS[kind], **changes)
    checkpoint = folder / "weights.pth"
    torch.save({"state_dict": build_detector(config).state_dict(), "meta": {}}, checkpoint)
    return config, checkpoint


def build_detector(config: Path | Config) -> Any:
    """Return a detector whose scores spread, in evaluation mode, the same at every call."""
    settings = config if isinstance(config, Config) else Config.fromfile(config)
    init_default_scope("mmdet")
    torch.manual_seed(0)
    model = MODELS.build(settings.model)
    return spread(model).eval()


def spread(model: nn.Module) -> nn.Module:
    """Draw the last layers of heads anew, and return the model."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        deviations = [value for part, value in LAST_LAYERS.items() if part in name]
        if deviations:
            parameter.data = deviations[0] * torch.randn(parameter.shape, generator=generator)
        elif name == "level_embed":  # mmdet leaves it as the memory was
            parameter.data = torch.randn(parameter.shape, generator=generator)
        elif "sampling_offsets" in name or "attention_weights" in name:
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    return model


def draw(seed: int, *sizes: tuple[int, int], padded: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return random images (N, 3, H, W), 0 beyond their own sizes, and these sizes (N, 2)."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(len(sizes), 3, *padded, generator=generator)
    for image, (height, width) in zip(images, sizes, strict=True):
        image[:, height:] = 0.0
        image[:, :, width:] = 0.0
    return images, torch.tensor(sizes)


@torch.no_grad()
def predict(model: Any, images: Tensor, sizes: Tensor) -> list[InstanceData]:
    """Return what mmdet's own ``predict`` finds in padded images, in the input's pixels."""
    padded = tuple(images.shape[2:])
    samples = []
    for size in sizes.tolist():
        facts = dict(img_shape=tuple(size), ori_shape=tuple(size), scale_factor=(1.0, 1.0))
        facts |= dict(batch_input_shape=padded, pad_shape=padded)
        samples.append(DetDataSample(metainfo=facts))
    return [one.pred_instances for one in model.predict(images, samples, rescale=False)]


def assert_same(
    found: list[np.ndarray], expected: list[InstanceData], *, pixels: float, score: float
) -> None:
    """Check a detector's padded outputs against mmdet's results, detection by detection.

    Args:
        found: boxes with scores (N, K, 5), classes (N, K), perhaps masks (N, K, h, w).
        expected: mmdet's.
        pixels: largest difference of a box.
        score: largest difference of a score.
    """
    boxes, labels = found[0], found[1]
    assert len(boxes) == len(expected)
    for index, wanted in enumerate(expected):
        count = len(wanted.labels)
        assert count > 0, "nothing to compare"
        assert labels[index, :count].tolist() == wanted.labels.tolist()
        np.testing.assert_allclose(
            boxes[index, :count, :4], wanted.bboxes.numpy(), rtol=0, atol=pixels
        )
        np.testing.assert_allclose(
            boxes[index, :count, 4], wanted.scores.numpy(), rtol=0, atol=score
        )
        assert (labels[index, count:] == -1).all()
        assert not boxes[index, count:].any()
