"""Segmentors that are small enough for a test: InternImage of 16 channels and each kind of head."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

import internimage.integrations.openmmlab.segmentation  # noqa: F401  (registers the models)
from internimage.integrations.openmmlab.segmentation import InternImageSegmentor

CLASSES = 5
WIDTHS = [16, 32, 64, 128]


def uper_head(**changes: Any) -> dict[str, Any]:
    """Return UPerNet's head."""
    return (
        dict(
            type="UPerHead",
            in_channels=WIDTHS,
            in_index=[0, 1, 2, 3],
            channels=16,
            num_classes=CLASSES,
            norm_cfg=dict(type="BN"),
        )
        | changes
    )


def segformer_head() -> dict[str, Any]:
    """Return SegFormer's head."""
    return uper_head(type="SegformerHead")


def mask2former_head(**changes: Any) -> dict[str, Any]:
    """Return a Mask2Former head 32 wide, with 6 queries and 3 decoder layers."""
    attention = dict(embed_dims=32, num_heads=4, batch_first=True)
    deformable = attention | dict(num_levels=3, dropout=0.0)
    ffn = dict(embed_dims=32, feedforward_channels=64, ffn_drop=0.0)
    encoding = dict(num_feats=16, normalize=True)
    costs = [
        dict(type="mmdet.ClassificationCost", weight=2.0),
        dict(type="mmdet.CrossEntropyLossCost", weight=5.0, use_sigmoid=True),
        dict(type="mmdet.DiceCost", weight=5.0, pred_act=True, eps=1.0),
    ]
    return (
        dict(
            type="InternImageMask2FormerHead",
            in_channels=WIDTHS,
            feat_channels=32,
            out_channels=32,
            num_classes=CLASSES,
            num_queries=6,
            num_transformer_feat_level=3,
            positional_encoding=encoding,
            pixel_decoder=dict(
                type="mmdet.MSDeformAttnPixelDecoder",
                num_outs=3,
                norm_cfg=dict(type="GN", num_groups=8),
                act_cfg=dict(type="ReLU"),
                positional_encoding=encoding,
                encoder=dict(num_layers=1, layer_cfg=dict(self_attn_cfg=deformable, ffn_cfg=ffn)),
            ),
            transformer_decoder=dict(
                return_intermediate=True,
                num_layers=3,
                layer_cfg=dict(self_attn_cfg=attention, cross_attn_cfg=attention, ffn_cfg=ffn),
            ),
            loss_cls=dict(
                type="mmdet.CrossEntropyLoss",
                loss_weight=2.0,
                class_weight=[1.0] * CLASSES + [0.1],
            ),
            loss_mask=dict(type="mmdet.CrossEntropyLoss", use_sigmoid=True, loss_weight=5.0),
            loss_dice=dict(
                type="mmdet.DiceLoss", use_sigmoid=True, activate=True, naive_dice=True, eps=1.0
            ),
            train_cfg=dict(
                num_points=64,
                oversample_ratio=3.0,
                importance_sample_ratio=0.75,
                assigner=dict(type="mmdet.HungarianAssigner", match_costs=costs),
                sampler=dict(type="mmdet.MaskPseudoSampler"),
            ),
        )
        | changes
    )


HEADS = {
    "upernet": uper_head,
    "segformer": segformer_head,
    "mask2former": mask2former_head,
}


def build(
    head: dict[str, Any], test_cfg: dict[str, Any] | None = None, **fields: Any
) -> InternImageSegmentor:
    """Build a segmentor with drawn weights and test-like batch norms, ready to predict.

    Args:
        head: its decode head.
        test_cfg: how it predicts; None for whole images.
        **fields: others of the segmentor.
    """
    torch.manual_seed(0)
    model = MODELS.build(
        ConfigDict(
            dict(
                type="InternImageSegmentor",
                backbone=dict(type="InternImage", arch="test_t"),
                decode_head=head,
                test_cfg=test_cfg,
            )
            | fields
        )
    )
    for name, parameter in model.named_parameters():
        if "conv_seg" in name or "_embed" in name:
            torch.nn.init.normal_(parameter, std=0.5)  # so that labels differ between pixels
    return model.eval()


def sample(height: int, width: int, **meta: Any) -> SegDataSample:
    """Return the data sample of an image of this size, with more metadata or others."""
    shape = (height, width)
    return SegDataSample(metainfo=dict(ori_shape=shape, img_shape=shape, pad_shape=shape) | meta)


def with_mask(data_sample: SegDataSample, mask: np.ndarray | torch.Tensor) -> SegDataSample:
    """Give a sample its true labels (H, W)."""
    data_sample.gt_sem_seg = PixelData(data=torch.as_tensor(mask).long()[None])
    return data_sample


def metas(samples: list[SegDataSample]) -> list[dict[str, Any]]:
    """Return copies of the samples' metadata."""
    return [dict(data_sample.metainfo) for data_sample in samples]
