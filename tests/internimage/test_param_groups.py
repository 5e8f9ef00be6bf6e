from __future__ import annotations

import pytest
import torch

import internimage
from internimage.param_groups import (
    freeze_stages,
    has_weight_decay,
    is_in_stages,
    layer_decay_scale,
    param_groups,
)

DEPTHS = (4, 4, 18, 4)

# Name -> how many blocks lie behind it (the exponent of the decay).
EXPONENTS = {
    "levels.3.blocks.3.dcn.input_proj.weight": 0,
    "levels.3.blocks.0.gamma1": 3,
    "levels.2.blocks.17.mlp.fc1.weight": 4,
    "levels.2.blocks.1.mlp.fc1.weight": 20,
    "levels.2.blocks.10.mlp.fc1.weight": 11,
    "levels.0.blocks.0.norm1.0.weight": 29,
    "patch_embed.conv1.weight": 29,
    "levels.0.downsample.conv.weight": 25,
    "levels.0.norm.0.weight": 25,
    "levels.1.downsample.norm.1.bias": 21,
    "levels.2.norm.0.weight": 3,
    "levels.2.downsample.conv.weight": 3,
    "levels.3.norm.0.weight": 0,
    "levels.2.post_norms.0.0.weight": 0,
    "conv_head.0.weight": 0,
    "head.weight": 0,
    "clip_projector.proj.weight": 0,
}


@pytest.mark.parametrize(("name", "exponent"), EXPONENTS.items())
@pytest.mark.parametrize("prefix", ["", "module.", "backbone."])
def test_layer_decay_counts_the_blocks_behind(name, exponent, prefix):
    assert layer_decay_scale(prefix + name, DEPTHS, 0.9) == pytest.approx(0.9**exponent)


@pytest.mark.parametrize(
    "name", ["levels.4.blocks.0.gamma1", "levels.4.norm.0.weight", "levels.1.blocks.4.gamma1"]
)
def test_depths_of_another_model_are_refused(name):
    with pytest.raises(ValueError, match=f"layer_decay_scale: expected a parameter .* got {name}"):
        layer_decay_scale(name, DEPTHS, 0.9)


@pytest.mark.parametrize("size", ["t", "h", "g"])
def test_every_parameter_of_a_model_has_the_scale_of_the_rules(size):
    with torch.device("meta"):
        model = internimage.create_model(size)
    # Straight from the words: walk all blocks from the last to the first.
    table, factor = {}, 1.0
    for stage in (3, 2, 1, 0):
        for block in reversed(range(model.depths[stage])):
            table[f"levels.{stage}.blocks.{block}."] = factor
            factor *= 0.875
    for stage in (0, 1, 2):
        for part in ("norm.", "downsample."):
            table[f"levels.{stage}.{part}"] = table[f"levels.{stage + 1}.blocks.0."]
    table["patch_embed."] = table["levels.0.blocks.0."]
    for name, _ in model.named_parameters():
        expected = next((f for start, f in table.items() if name.startswith(start)), 1.0)
        assert layer_decay_scale(name, model.depths, 0.875) == pytest.approx(expected), name


@pytest.mark.parametrize(
    ("name", "ndim", "decays"),
    [
        ("head.weight", 2, True),
        ("levels.0.blocks.0.dcn.dw_conv.0.weight", 4, True),
        ("levels.0.blocks.0.dcn.center_feature_scale_proj_weight", 2, True),
        ("levels.0.blocks.0.dcn.center_feature_scale_proj_bias", 1, False),
        ("head.bias", 1, False),
        ("odd.bias", 2, False),
        ("levels.0.blocks.0.gamma1", 1, False),
        ("levels.0.norm.0.weight", 1, False),
    ],
)
def test_vectors_and_biases_do_not_decay(name, ndim, decays):
    assert has_weight_decay(name, ndim) is decays
    assert not has_weight_decay(name, ndim, skip=[name])


@pytest.mark.parametrize("layer_decay", [1.0, 0.9])
def test_the_dcn_rate_reaches_offsets_and_gates_with_and_without_layer_decay(layer_decay):
    model = internimage.create_model("internimage_test_h")
    groups = param_groups(
        model.named_parameters(),
        depths=model.depths,
        lr=2.0,
        weight_decay=0.05,
        layer_decay=layer_decay,
        dcn_lr_mul=0.1,
    )
    names = [name for group in groups for name in group["names"]]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    for group in groups:
        assert group["lr"] == pytest.approx(2.0 * group["lr_scale"])
        for name in group["names"]:
            slow = ".dcn.offset." in name or "center_feature_scale_proj" in name
            expected = layer_decay_scale(name, model.depths, layer_decay) * (0.1 if slow else 1.0)
            assert group["lr_scale"] == pytest.approx(expected), name
    assert any(".dcn.mask." in n for g in groups for n in g["names"] if g["lr_scale"] >= 0.5)
    optimizer = torch.optim.AdamW(groups)
    assert optimizer.param_groups[0]["names"] == groups[0]["names"]


def test_equal_parameters_share_a_group():
    model = internimage.create_model("internimage_test_t")
    groups = param_groups(model.named_parameters(), depths=model.depths, lr=1.0, weight_decay=0.1)
    assert sorted(group["weight_decay"] for group in groups) == [0.0, 0.1]


def test_frozen_stages_are_in_no_group():
    model = internimage.create_model("internimage_test_t")
    frozen = freeze_stages(model, [0, 2])
    assert all(is_in_stages(name, [0, 2]) for name in frozen)
    groups = param_groups(model.named_parameters(), depths=model.depths, lr=1.0, weight_decay=0.1)
    names = {name for group in groups for name in group["names"]}
    assert names.isdisjoint(frozen)
    assert names | set(frozen) == {name for name, _ in model.named_parameters()}
    assert "patch_embed.conv1.weight" in names
    assert "levels.1.blocks.0.gamma1" not in frozen


def test_impossible_values_are_value_errors():
    model = internimage.create_model("internimage_test_t")
    settings = {"depths": model.depths, "lr": 1.0, "weight_decay": 0.1}
    with pytest.raises(ValueError, match="expected 0 < decay <= 1, got 0.0"):
        param_groups(model.named_parameters(), **settings, layer_decay=0.0)
    with pytest.raises(ValueError, match="expected dcn_lr_mul >= 0, got -1"):
        param_groups(model.named_parameters(), **settings, dcn_lr_mul=-1)
    with pytest.raises(ValueError, match="freeze_stages: expected stages of the model, got 7"):
        freeze_stages(model, [7])
    freeze_stages(model, [0, 1, 2, 3])
    stages_only = [(n, p) for n, p in model.named_parameters() if n.startswith("levels")]
    with pytest.raises(ValueError, match="requires a gradient, got none"):
        param_groups(stages_only, **settings)
