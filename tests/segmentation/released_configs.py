"""Segmentors of the original, in 2022's fields, in the fields of now."""

from __future__ import annotations

import copy
from typing import Any

from tests.config_facts import taken

ENCODER_ORDER = ["self_attn", "norm", "ffn", "norm"]
DECODER_ORDER = ["cross_attn", "norm", "self_attn", "norm", "ffn", "norm"]


def to_current(model: dict[str, Any]) -> dict[str, Any]:
    """Return the model of a config of the original for ``mmseg.registry.MODELS.build``."""
    model = copy.deepcopy(model)
    if model["type"] == "EncoderDecoderMask2Former":
        model["decode_head"] = current_mask2former(model["decode_head"], model.pop("train_cfg"))
        # of panoptic and instance segmentation, which no segmentor looked at
        for name in ("panoptic_on", "semantic_on", "instance_on", "max_per_image", "iou_thr"):
            model["test_cfg"].pop(name)
        model["test_cfg"].pop("filter_low_score")
        model["train_cfg"] = {}
    model.pop("pretrained")  # of the backbone that the config inherited, and replaced
    return model | {"type": "InternImageSegmentor"}


def current_mask2former(head: dict[str, Any], train_cfg: dict[str, Any]) -> dict[str, Any]:
    """Return a Mask2Former head's fields as mmdet 3 has them."""
    assert head.pop("type") == "Mask2FormerHead"
    head.pop("in_index")  # it takes all maps
    assigner = train_cfg.pop("assigner")
    assert assigner.pop("type") == "MaskHungarianAssigner"
    costs = [_mmdet(assigner.pop(name)) for name in ("cls_cost", "mask_cost", "dice_cost")]
    taken(assigner, "assigner")
    losses = {key: _mmdet(head.pop(key)) for key in ("loss_cls", "loss_mask", "loss_dice")}
    pixels = _mmdet(head.pop("pixel_decoder"))
    pixels["encoder"] = _current_encoder(pixels["encoder"])
    positions = head.pop("positional_encoding")
    for encoding in (positions, pixels["positional_encoding"]):
        assert encoding.pop("type") == "SinePositionalEncoding"
    return (
        head
        | losses
        | {
            "type": "InternImageMask2FormerHead",
            "pixel_decoder": pixels,
            "positional_encoding": positions,
            "transformer_decoder": _current_decoder(head.pop("transformer_decoder")),
            "train_cfg": train_cfg
            | {
                "assigner": {"type": "mmdet.HungarianAssigner", "match_costs": costs},
                "sampler": _mmdet(train_cfg.pop("sampler")),
            },
        }
    )


def _mmdet(fields: dict[str, Any]) -> dict[str, Any]:
    return fields | {"type": f"mmdet.{fields['type']}"}


def _current_encoder(encoder: dict[str, Any]) -> dict[str, Any]:
    assert encoder.pop("type") == "DetrTransformerEncoder"
    layer = encoder.pop("transformerlayers")
    assert layer.pop("type") == "BaseTransformerLayer"
    assert layer.pop("operation_order") == ENCODER_ORDER
    attention, ffn = layer.pop("attn_cfgs"), layer.pop("ffn_cfgs")
    assert attention.pop("type") == "MultiScaleDeformableAttention"
    taken(layer, "encoder layer")
    layers = {"self_attn_cfg": attention | {"batch_first": True}, "ffn_cfg": _current_ffn(ffn)}
    return encoder | {"layer_cfg": layers}


def _current_decoder(decoder: dict[str, Any]) -> dict[str, Any]:
    assert decoder.pop("type") == "DetrTransformerDecoder"
    layer = decoder.pop("transformerlayers")
    assert layer.pop("type") == "DetrTransformerDecoderLayer"
    assert layer.pop("operation_order") == DECODER_ORDER
    attention, ffn = layer.pop("attn_cfgs"), layer.pop("ffn_cfgs")
    assert attention.pop("type") == "MultiheadAttention"
    assert layer.pop("feedforward_channels") == ffn["feedforward_channels"]
    taken(layer, "decoder layer")
    attention = attention | {"batch_first": True}
    layers = {
        "self_attn_cfg": attention,
        "cross_attn_cfg": dict(attention),
        "ffn_cfg": _current_ffn(ffn),
    }
    return decoder | {"layer_cfg": layers}


def _current_ffn(ffn: dict[str, Any]) -> dict[str, Any]:
    assert not ffn.pop("with_cp")
    ffn.pop("type", None)
    return ffn
