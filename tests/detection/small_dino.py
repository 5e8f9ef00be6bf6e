"""A DINO and a CB-DINO that are small enough for a test, and targets for them."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor, nn

import internimage.integrations.openmmlab.detection  # noqa: F401  (registers the models)

SIDE = 64
"""Of the images, pixels."""


def small_config(**changes: Any) -> ConfigDict:
    """Return a DINO of width 32 with 3 classes."""
    attention = dict(embed_dims=32, num_heads=4, dropout=0.0)
    deformable = dict(embed_dims=32, num_heads=4, num_levels=4, dropout=0.0)
    ffn = dict(embed_dims=32, feedforward_channels=64, ffn_drop=0.0)
    config = dict(
        type="InternImageDINO",
        backbone=dict(type="InternImage", arch="test_t", out_indices=(1, 2, 3)),
        neck=dict(
            type="ChannelMapper",
            in_channels=[32, 64, 128],
            out_channels=32,
            kernel_size=1,
            act_cfg=None,
            norm_cfg=dict(type="GN", num_groups=8),
            num_outs=4,
        ),
        num_queries=10,
        encoder=dict(num_layers=1, layer_cfg=dict(self_attn_cfg=deformable, ffn_cfg=ffn)),
        decoder=dict(
            num_layers=2,
            return_intermediate=True,
            layer_cfg=dict(self_attn_cfg=attention, cross_attn_cfg=deformable, ffn_cfg=ffn),
            post_norm_cfg=None,
        ),
        positional_encoding=dict(num_feats=16, normalize=True, temperature=20),
        bbox_head=dict(
            type="InternImageDINOHead",
            num_classes=3,
            embed_dims=32,
            sync_cls_avg_factor=True,
            loss_cls=dict(type="FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25),
            loss_bbox=dict(type="L1Loss", loss_weight=5.0),
            loss_iou=dict(type="GIoULoss", loss_weight=2.0),
        ),
        dn_cfg=dict(
            label_noise_scale=0.0,
            box_noise_scale=0.0,
            group_cfg=dict(dynamic=True, num_groups=None, num_dn_queries=10),
        ),
        train_cfg=dict(
            assigner=dict(
                type="HungarianAssigner",
                match_costs=[
                    dict(type="FocalLossCost", weight=2.0),
                    dict(type="BBoxL1Cost", weight=5.0, box_format="xywh"),
                    dict(type="IoUCost", iou_mode="giou", weight=2.0),
                ],
            )
        ),
        test_cfg=dict(max_per_img=10),
    )
    return ConfigDict(config | changes)


def small_cb_config(**changes: Any) -> ConfigDict:
    """Return the same on two streams."""
    neck = dict(small_config()["neck"], type="CBChannelMapper")
    backbone = dict(type="CBInternImage", arch="test_h")
    return small_config(**(dict(type="CBDINO", backbone=backbone, neck=neck) | changes))


def build(config: ConfigDict) -> nn.Module:
    """Build and initialise a model, the same at every call."""
    torch.manual_seed(0)
    model = MODELS.build(config)
    model.init_weights()
    return model


def images_and_targets(*numbers_of_boxes: int) -> tuple[Tensor, list[DetDataSample]]:
    """Return images and data samples with so many boxes each, the same at every call."""
    samples = []
    for number in numbers_of_boxes:
        start = torch.arange(number * 2.0).reshape(number, 2) * 4
        sample = DetDataSample(
            metainfo=dict(img_shape=(SIDE, SIDE), batch_input_shape=(SIDE, SIDE))
        )
        sample.gt_instances = InstanceData(
            bboxes=torch.cat([start, start + 24], dim=1), labels=torch.arange(number) % 3
        )
        samples.append(sample)
    torch.manual_seed(1)
    return torch.randn(len(numbers_of_boxes), 3, SIDE, SIDE), samples


def losses_and_gradients(
    model: nn.Module, *numbers_of_boxes: int
) -> tuple[dict[str, Tensor], dict[str, Tensor | None]]:
    """Return a training step's losses and the gradients of their sum, by name."""
    losses = model.train().loss(*images_and_targets(*numbers_of_boxes))
    total, _ = model.parse_losses(losses)
    model.zero_grad()
    total.backward()
    return losses, {name: p.grad for name, p in model.named_parameters()}
