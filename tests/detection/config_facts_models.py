"""What the ``model`` of a config decides, see ``config_facts.py``."""

from __future__ import annotations

import copy
from typing import Any

from tests.config_facts import current_backbone, original_backbone, taken

ENCODER_ORDER = ["self_attn", "norm", "ffn", "norm"]
DECODER_ORDER = ["self_attn", "norm", "cross_attn", "norm", "ffn", "norm"]
DINO_TYPES = {
    "DINO": "InternImageDINO",
    "DINOHead": "InternImageDINOHead",
    "CBDINO": "CBDINO",
    "CBDINOHead": "InternImageDINOHead",
}


def original_model(model: dict[str, Any]) -> dict[str, Any]:
    """Return the facts of a model of the original, but for the norm of its images."""
    facts = original_backbone(model.pop("backbone"))
    if model["type"] in DINO_TYPES:
        return facts | original_dino(model)
    return facts | model | {"with_cp": False}


def current_model(model: dict[str, Any]) -> dict[str, Any]:
    """Return the facts of a model of ours."""
    model = copy.deepcopy(model)
    backbone = current_backbone(model.pop("backbone"))
    norm = model["data_preprocessor"]
    assert norm.pop("type") == "DetDataPreprocessor"
    norm.setdefault("pad_mask", False)
    model.setdefault("with_cp", False)
    model.pop("_scope_", None)  # where mmengine found the base
    return model | backbone


def original_dino(model: dict[str, Any]) -> dict[str, Any]:
    """Return a DINO's fields as mmdet 3 has them: the transformer is out of the head, and flat."""
    head, neck = model.pop("bbox_head"), model.pop("neck")
    transformer = head.pop("transformer")
    noise, positions = head.pop("dn_cfg"), head.pop("positional_encoding")
    training = model.pop("train_cfg")
    assigner = training.pop("assigner")
    queries = head.pop("num_query")
    assert transformer.pop("type") == "DinoTransformer"
    assert transformer.pop("two_stage_num_proposals") == queries
    assert noise.pop("type") == "CdnQueryGenerator"
    assert positions.pop("type") == "SinePositionalEncoding"
    assert head.pop("in_channels") == 2048  # without an effect
    encoder, encoder_ffn = _original_layers(transformer.pop("encoder"), ENCODER_ORDER)
    decoder, decoder_ffn = _original_layers(transformer.pop("decoder"), DECODER_ORDER)
    assert encoder_ffn == decoder_ffn
    facts = {
        "type": DINO_TYPES[model.pop("type")],
        "num_queries": queries,
        "as_two_stage": head.pop("as_two_stage"),
        "with_box_refine": head.pop("with_box_refine"),
        "with_cp": encoder_ffn["use_checkpoint"],
        "neck": neck[0] if isinstance(neck, list) else neck,
        "encoder": encoder,
        "decoder": decoder | {"return_intermediate": True, "post_norm_cfg": None},
        "positional_encoding": positions,
        "dn_cfg": {
            "label_noise_scale": noise["noise_scale"]["label"],
            "box_noise_scale": noise["noise_scale"]["box"],
            "group_cfg": noise["group_cfg"],
        },
        "train_cfg": {
            "assigner": {
                "type": assigner.pop("type"),
                "match_costs": [assigner.pop(f"{key}_cost") for key in ("cls", "reg", "iou")],
            }
        },
        "test_cfg": model.pop("test_cfg"),
        "bbox_head": head | {"type": DINO_TYPES[head["type"]]},
    }
    if encoder_ffn["type"] != "FFN":
        facts["ffn"] = encoder_ffn["type"]
    if "fed_loss_cfg" in training:
        facts["fed_loss_without_effect"] = training.pop("fed_loss_cfg")
    if "snip_cfg" in training:
        facts["snip_without_effect"] = training.pop("snip_cfg")
    for what, fields in {"model": model, "train_cfg": training, "assigner": assigner}.items():
        taken(fields, what)
    taken(transformer, "transformer")
    return facts


def _original_layers(
    stack: dict[str, Any], order: list[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the facts of an encoder or decoder, and the kind of its feed-forward layers."""
    layer = stack["transformerlayers"]
    assert layer["operation_order"] == order
    attentions = layer["attn_cfgs"]
    configs = {}
    for key, attention in zip(
        ("self_attn_cfg", "cross_attn_cfg"),
        attentions if isinstance(attentions, list) else [attentions],
        strict=False,
    ):
        if attention.pop("type") == "MultiScaleDeformableAttention":
            attention = {"num_levels": 4} | attention
        else:  # today the name "dropout" is deprecated in it
            rate = attention.pop("dropout")
            dropout = {"type": "Dropout", "drop_prob": rate}
            attention |= {"attn_drop": rate, "dropout_layer": dropout}
        configs[key] = attention
    ffn = {"type": "FFN", "use_checkpoint": False} | layer.get("ffn_cfgs", {})
    widths = {"embed_dims": 256, "feedforward_channels": layer["feedforward_channels"]}
    assert all(ffn.get(key, value) == value for key, value in widths.items())
    configs["ffn_cfg"] = widths | {"ffn_drop": layer["ffn_dropout"]}
    return {"num_layers": stack["num_layers"], "layer_cfg": configs}, ffn
