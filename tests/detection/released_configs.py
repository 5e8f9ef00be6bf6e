"""Models of the original's configs: ours of the same names, and theirs in the fields of now."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

CONFIGS = Path(__file__).parents[2] / "detection" / "configs"

DINO_TYPES = {"DINO": "InternImageDINO", "CBDINO": "CBDINO"}


def read_config(name: str) -> Config:
    """Return our config of a name such as ``coco/mask_rcnn_internimage_t_fpn_1x_coco``."""
    return Config.fromfile(CONFIGS / f"{name}.py")


def build_without_storage(config: Config) -> nn.Module:
    """Build a config's model at its full size on the meta device."""
    init_default_scope(config.default_scope)
    with torch.device("meta"):
        return MODELS.build(config.model)


def to_current(model: dict[str, Any]) -> dict[str, Any]:
    """Return a recorded model's config for ``mmdet.registry.MODELS.build``."""
    model = copy.deepcopy(model)
    return _dino(model) if model["type"] in DINO_TYPES else _without_sync_bn(model)


def _without_sync_bn(value: Any) -> Any:
    """Synchronised batch norm cannot learn on a CPU; on one process it is the ordinary one."""
    if isinstance(value, dict):
        return {key: _without_sync_bn(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_sync_bn(item) for item in value]
    return "BN" if value == "SyncBN" else value


def _dino(model: dict[str, Any]) -> dict[str, Any]:
    head = model["bbox_head"]
    transformer = head["transformer"]
    neck = model["neck"]
    assigner = model["train_cfg"]["assigner"]
    iou_cost = assigner["iou_cost"]
    denoising = head["dn_cfg"]
    return dict(
        type=DINO_TYPES[model["type"]],
        backbone=model["backbone"],
        neck=neck[0] if isinstance(neck, list) else neck,
        num_queries=head["num_query"],
        encoder=_layers(transformer["encoder"]),
        decoder=_layers(transformer["decoder"])
        | dict(return_intermediate=True, post_norm_cfg=None),
        positional_encoding={k: v for k, v in head["positional_encoding"].items() if k != "type"},
        bbox_head=dict(type="InternImageDINOHead")
        | {
            key: head[key]
            for key in ("num_classes", "sync_cls_avg_factor", "loss_cls", "loss_bbox", "loss_iou")
        },
        dn_cfg=dict(
            label_noise_scale=denoising["noise_scale"]["label"],
            box_noise_scale=denoising["noise_scale"]["box"],
            group_cfg=denoising["group_cfg"],
        ),
        train_cfg=dict(
            assigner=dict(
                type="HungarianAssigner",
                match_costs=[assigner["cls_cost"], assigner["reg_cost"], iou_cost],
            )
        ),
        test_cfg=model["test_cfg"],
    )


def _layers(coder: dict[str, Any]) -> dict[str, Any]:
    """An encoder's or decoder's layers: attention modules by role, one feed-forward layer."""
    old = coder["transformerlayers"]
    attentions = old["attn_cfgs"]
    attentions = attentions if isinstance(attentions, list) else [attentions]
    roles = ("self_attn_cfg", "cross_attn_cfg")
    layer: dict[str, Any] = {
        role: {key: value for key, value in attention.items() if key != "type"}
        for role, attention in zip(roles, attentions, strict=False)
    }
    layer["ffn_cfg"] = dict(
        embed_dims=attentions[0]["embed_dims"],
        feedforward_channels=old["feedforward_channels"],
        ffn_drop=old["ffn_dropout"],
    )
    return dict(num_layers=coder["num_layers"], layer_cfg=layer)
