"""Names of released detectors and segmentors become today's, and nothing gets lost."""

from __future__ import annotations

import re

import pytest
import torch
import torch.nn.functional as F

from internimage.integrations.openmmlab import convert_state_dict
from tests.released_records import read_json

DETECTORS = read_json("dense/keys")["detection"]
SEGMENTORS = read_json("dense/keys")["segmentation"]

RENAMED = {
    "module.backbone.levels.0.norm.0.weight": "backbone.levels.0.norm.0.weight",
    # DINO
    "bbox_head.transformer.level_embeds": "level_embed",
    "bbox_head.transformer.enc_output.weight": "memory_trans_fc.weight",
    "bbox_head.transformer.enc_output_norm.weight": "memory_trans_norm.weight",
    "bbox_head.transformer.query_embed.weight": "query_embedding.weight",
    "bbox_head.transformer.encoder.layers.5.attentions.0.value_proj.weight": (
        "encoder.layers.5.self_attn.value_proj.weight"
    ),
    "bbox_head.transformer.encoder.layers.5.ffns.0.layers.0.0.weight": (
        "encoder.layers.5.ffn.layers.0.0.weight"
    ),
    "bbox_head.transformer.encoder.layers.5.norms.1.bias": "encoder.layers.5.norms.1.bias",
    "bbox_head.transformer.decoder.layers.0.attentions.0.attn.in_proj_weight": (
        "decoder.layers.0.self_attn.attn.in_proj_weight"
    ),
    "bbox_head.transformer.decoder.layers.0.attentions.1.sampling_offsets.bias": (
        "decoder.layers.0.cross_attn.sampling_offsets.bias"
    ),
    "bbox_head.transformer.decoder.ref_point_head.0.weight": (
        "decoder.ref_point_head.layers.0.weight"
    ),
    "bbox_head.transformer.decoder.ref_point_head.2.bias": "decoder.ref_point_head.layers.1.bias",
    "bbox_head.transformer.decoder.norm.bias": "decoder.norm.bias",
    "bbox_head.label_embedding.weight": "dn_query_generator.label_embedding.weight",
    "bbox_head.cls_branches.6.weight": "bbox_head.cls_branches.6.weight",
    # Mask2Former
    "decode_head.pixel_decoder.encoder.layers.0.attentions.0.value_proj.weight": (
        "decode_head.pixel_decoder.encoder.layers.0.self_attn.value_proj.weight"
    ),
    "decode_head.pixel_decoder.encoder.layers.0.ffns.0.layers.1.bias": (
        "decode_head.pixel_decoder.encoder.layers.0.ffn.layers.1.bias"
    ),
    "decode_head.pixel_decoder.level_encoding.weight": (
        "decode_head.pixel_decoder.level_encoding.weight"
    ),
    "decode_head.transformer_decoder.layers.8.attentions.0.attn.out_proj.bias": (
        "decode_head.transformer_decoder.layers.8.cross_attn.attn.out_proj.bias"
    ),
    "decode_head.transformer_decoder.layers.8.attentions.1.attn.out_proj.bias": (
        "decode_head.transformer_decoder.layers.8.self_attn.attn.out_proj.bias"
    ),
    "decode_head.transformer_decoder.layers.8.ffns.0.layers.1.bias": (
        "decode_head.transformer_decoder.layers.8.ffn.layers.1.bias"
    ),
    "decode_head.query_embed.weight": "decode_head.query_embed.weight",
}
OLD_NAMES = re.compile(r"attentions\.|ffns\.|transformer\.|fc[12]_|level_embeds|enc_output")
FFN = "bbox_head.transformer.encoder.layers.0.ffns.0."


def without_storage(keys):
    return {key: torch.empty(shape, device="meta") for key, shape in keys.items()}


def split_ffn(quarters=4):
    """A feed-forward layer cut in four: from 6 features to 8 hidden ones and back."""
    weights = {f"{FFN}fc2_bias": torch.randn(6)}
    for i in range(quarters):
        weights[f"{FFN}fc1_{i}.weight"] = torch.randn(2, 6)
        weights[f"{FFN}fc1_{i}.bias"] = torch.randn(2)
    return weights | {f"{FFN}fc2_{i}.weight": torch.randn(6, 2) for i in range(quarters)}


@pytest.mark.parametrize("name", SEGMENTORS)
def test_converted_weights_of_a_released_segmentor_have_todays_names(name):
    weights = without_storage(SEGMENTORS[name])
    converted = convert_state_dict(weights)
    assert list(converted.values()) == list(weights.values())
    assert not [key for key in converted if OLD_NAMES.search(key)]
    renamed = sum(old != new for old, new in zip(weights, converted, strict=True))
    # 6 encoder layers of 12 attention and feed-forward tensors, 9 decoder layers of as many
    assert renamed == (6 * 12 + 9 * 12 if "mask2former" in name else 0)


@pytest.mark.parametrize("old", RENAMED)
def test_a_name_becomes_todays(old):
    assert list(convert_state_dict({old: torch.ones(1)})) == [RENAMED[old]]


@pytest.mark.parametrize("name", [*DETECTORS, *SEGMENTORS])
def test_names_of_today_stay_as_they_are(name):
    keys = DETECTORS.get(name) or SEGMENTORS[name]
    converted = convert_state_dict(without_storage(keys))
    again = convert_state_dict(converted)
    assert list(again) == list(converted)
    assert all(again[key] is value for key, value in converted.items())


def test_the_neck_of_cbdino_is_no_list_any_more_but_a_neck_of_two_parts_is():
    transformer = {"bbox_head.transformer.level_embeds": torch.ones(1)}
    first = {"neck.0.convs.0.conv.weight": torch.ones(1)}
    second = {"neck.1.convs.0.conv.weight": torch.ones(1)}
    assert "neck.convs.0.conv.weight" in convert_state_dict(transformer | first)
    assert "neck.0.convs.0.conv.weight" in convert_state_dict(first)
    assert "neck.0.convs.0.conv.weight" in convert_state_dict(transformer | first | second)


def test_the_quarters_of_a_feed_forward_layer_are_one_function():
    torch.manual_seed(0)
    weights = split_ffn()
    x = torch.randn(3, 6)
    expected = weights[f"{FFN}fc2_bias"].expand(3, 6)
    for i in range(4):
        hidden = F.linear(x, weights[f"{FFN}fc1_{i}.weight"], weights[f"{FFN}fc1_{i}.bias"])
        expected = expected + F.linear(hidden.relu(), weights[f"{FFN}fc2_{i}.weight"])
    converted = convert_state_dict({"a": x} | weights | {"b": x})
    assert list(converted) == ["a"] + [
        f"encoder.layers.0.ffn.layers.{name}"
        for name in ("0.0.weight", "0.0.bias", "1.weight", "1.bias")
    ] + ["b"]
    first, first_bias, second, second_bias = list(converted.values())[1:-1]
    found = F.linear(F.linear(x, first, first_bias).relu(), second, second_bias)
    torch.testing.assert_close(found, expected)


def test_weights_are_neither_copied_nor_changed():
    weights = {
        "module.bbox_head.transformer.level_embeds": torch.ones(2),
        "module.x": torch.ones(1),
    }
    before = dict(weights)
    converted = convert_state_dict(weights)
    assert weights == before
    assert converted["level_embed"] is before["module.bbox_head.transformer.level_embeds"]


def test_the_copies_of_the_old_moving_average_hook_are_left_out():
    weights = {"neck.conv.weight": torch.ones(1), "ema_neck_conv_weight": torch.zeros(1)}
    assert list(convert_state_dict(weights)) == ["neck.conv.weight"]
    strange = {"ema_neck_conv_weight": torch.zeros(1)}
    assert list(convert_state_dict(strange)) == ["ema_neck_conv_weight"]


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        (
            {"level_embed": torch.ones(1), "bbox_head.transformer.level_embeds": torch.ones(1)},
            ValueError,
            "expected one tensor for level_embed, got level_embed and bbox_head",
        ),
        (split_ffn() | {f"{FFN}layers.0.0.weight": torch.ones(1)}, ValueError, "one tensor for"),
        (
            {k: v for k, v in split_ffn().items() if not k.endswith("fc2_3.weight")},
            ValueError,
            "expected .*fc1_i.weight, fc1_i.bias, fc2_i.weight for every i and fc2_bias",
        ),
        ({"state_dict": {"x": torch.ones(1)}}, TypeError, "of a checkpoint give its state_dict"),
        ({"meta": {}, "x": torch.ones(1)}, TypeError, "got 'meta' with dict"),
    ],
)
def test_weights_that_cannot_be_converted_are_an_error(weights, error, message):
    with pytest.raises(error, match=message):
        convert_state_dict(weights)
