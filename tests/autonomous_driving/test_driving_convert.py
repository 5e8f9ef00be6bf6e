"""Names of the original's driving models: what is renamed, kept, dropped and refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from internimage.integrations.openmmlab.driving.convert import convert_driving, convert_on_load

PREDICTER = "pts_bbox_head.transformer.predicter.0.weight"
"""A name that occupancy models have and no others."""


def test_parts_of_the_view_come_from_where_the_original_has_them() -> None:
    weights = {
        PREDICTER: torch.tensor(0.0),
        "pts_bbox_head.bev_embedding.weight": torch.tensor(1.0),
        "pts_bbox_head.transformer.level_embeds": torch.tensor(2.0),
        "img_backbone.patch_embed.conv1.weight": torch.tensor(3.0),
    }
    assert {name: float(value) for name, value in convert_driving(weights).items()} == {
        "head.predictor.0.weight": 0.0,
        "view.bev_embedding.weight": 1.0,
        "view.level_embeds": 2.0,
        "backbone.patch_embed.conv1.weight": 3.0,
    }


def test_the_prefix_of_data_parallel_training_comes_off() -> None:
    weights = {f"module.{PREDICTER}": torch.zeros(1)}
    assert list(convert_driving(weights)) == ["head.predictor.0.weight"]


def test_our_own_names_stay() -> None:
    weights = {"view.level_embeds": torch.zeros(1), "neck.fpn_convs.0.conv.bias": torch.zeros(1)}
    assert convert_driving(weights) == weights


def test_a_whole_checkpoint_is_no_state_dict() -> None:
    with pytest.raises(TypeError, match="got 'state_dict' with dict; of a checkpoint give its"):
        convert_driving({"state_dict": {}})  # type: ignore[dict-item]


def test_a_name_without_a_place_is_refused() -> None:
    with pytest.raises(ValueError, match="driving models, got pts_head.weight"):
        convert_driving({PREDICTER: torch.zeros(1), "pts_head.weight": torch.zeros(1)})


def test_two_names_for_one_tensor_are_refused() -> None:
    weights = {PREDICTER: torch.zeros(1), f"module.{PREDICTER}": torch.zeros(1)}
    with pytest.raises(ValueError, match="one tensor for head.predictor.0.weight"):
        convert_driving(weights)


def test_loading_renames_what_belongs_to_the_module() -> None:
    inner = nn.Module()
    inner.head = nn.ModuleDict({"predictor": nn.Sequential(nn.Linear(2, 3))})
    inner.register_load_state_dict_pre_hook(convert_on_load)
    outer = nn.ModuleDict({"inner": inner, "other": nn.Linear(1, 1)})
    stem = f"inner.{PREDICTER}".removesuffix("weight")
    weights = {f"{stem}weight": torch.ones(3, 2), f"{stem}bias": torch.ones(3)}
    outer.load_state_dict({**weights, **outer["other"].state_dict(prefix="other.")})
    assert (inner.head["predictor"][0].weight == 1).all()
