"""State dicts of the original's three driving projects, renamed for ours: a pure function."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from internimage.integrations.openmmlab.convert import convert_in_place, require_tensors

Rules = tuple[tuple[str, str | None], ...]
"""Beginnings of names, as regular expressions, and what stands for them here; None drops them.
The first that fits is taken."""


def _transformer(old: str, new: str) -> Rules:
    """Return the rules of a DETR's layers, whose attentions mmdet 2 numbered."""
    encoder, decoder = (
        (rf"{old}\.transformer\.{part}\.layers\.(\d+)\.", rf"{new}.{part}.layers.\1.")
        for part in ("encoder", "decoder")
    )
    return tuple(
        (f"{pattern}{there}", f"{replacement}{here}")
        for (pattern, replacement), attentions in (
            (encoder, ["self"]),
            (decoder, ["self", "cross"]),
        )
        for there, here in [
            *((rf"attentions\.{i}\.", f"{name}_attn.") for i, name in enumerate(attentions)),
            # mmdet 3 has one network a layer, and no list.
            (r"ffns\.0\.", "ffn."),
            ("", ""),  # norms, whose names stayed
        ]
    )


OCCUPANCY: Rules = (
    (r"img_backbone\.", "backbone."),
    (r"img_neck\.", "neck."),
    # The voxels' part of the transformer first: what is left of it and of its head is the view.
    (r"pts_bbox_head\.transformer\.decoder\.", "head.decoder."),
    (r"pts_bbox_head\.transformer\.predicter\.", "head.predictor."),
    (r"pts_bbox_head\.transformer\.", "view."),
    (r"pts_bbox_head\.", "view."),
)
"""BEVFormer for occupancy: the view is spread over the head and its transformer there."""

OPENLANE: Rules = (
    (r"img_backbone\.", "backbone."),
    (r"img_neck\.", "neck."),
    (r"bev_constructor\.", "view."),
    *_transformer("pts_bbox_head", "head.lanes"),
    # Ones that the original's loss was multiplied by.
    (r"pts_bbox_head\.code_weights$", None),
    (r"pts_bbox_head\.transformer\.", "head.lanes."),
    (r"pts_bbox_head\.", "head.lanes."),
    *_transformer("bbox_head", "head.elements"),
    # `pts_bbox_head` finds lanes, `bbox_head` traffic elements; re.match does not take the one for
    # the other. The new names of the elements are mmdet 3's.
    (r"bbox_head\.transformer\.level_embeds$", "head.elements.level_embed"),
    (r"bbox_head\.transformer\.reference_points\.", "head.elements.reference_points_fc."),
    (r"bbox_head\.query_embedding\.", "head.elements.query_embedding."),
    (r"bbox_head\.", "head.elements.bbox_head."),
    (r"lclc_head\.MLP_o1\.", "head.lane_to_lane.rows."),
    (r"lclc_head\.MLP_o2\.", "head.lane_to_lane.columns."),
    (r"lclc_head\.", "head.lane_to_lane."),
    (r"lcte_head\.MLP_o1\.", "head.lane_to_element.rows."),
    (r"lcte_head\.MLP_o2\.", "head.lane_to_element.columns."),
    (r"lcte_head\.", "head.lane_to_element."),
)
"""OpenLane-V2's baseline."""

_DETECTOR_LAYER = r"head\.det_net\.transformer\.decoder\.layers\.(\d+)\."
_GENERATOR_LAYER = r"head\.gen_net\.decoder\.layers\.(\d+)\."

VECTOR_MAP: Rules = (
    (r"backbone\.img_backbone\.", "backbone."),
    (r"backbone\.img_neck\.", "neck."),
    (r"backbone\.upsample\.fscale\.", "view.upsample."),
    (r"backbone\.outconvs\.", "view.to_bev."),
    # Planes follow from the config; the masked embedding is used by nothing.
    (r"backbone\.(bev_planes|masked_embeds)", None),
    # What is called the neck there stands behind the planes; the pyramid has its name above.
    (r"neck\.", "view.trunk."),
    (r"head\.augmentation\.|head\.(det|gen)_net\.canvas_size", None),
    # The decoder's layers share their branches, which the file holds once per layer.
    (r"head\.det_net\.(label_embed|transformer\.level_embeds|pre_branches\.\w+\.[1-9])", None),
    (r"head\.det_net\.pre_branches\.(cls|reg)\.0\.", r"head.detector.\1_branch."),
    (r"head\.det_net\.input_proj\.", "head.detector.cells.projection."),
    (r"head\.det_net\.img_coord_embed\.", "head.detector.cells.coordinates."),
    (r"head\.det_net\.query_embedding\.", "head.detector.element_embed."),
    (r"head\.det_net\.bbox_embedding\.", "head.detector.corner_embed."),
    (r"head\.det_net\.transformer\.reference_points_embed\.", "head.detector.references."),
    (_DETECTOR_LAYER + r"attentions\.0\.", r"head.detector.layers.\1.self_attn."),
    (_DETECTOR_LAYER + r"attentions\.1\.", r"head.detector.layers.\1.cross_attn."),
    (_DETECTOR_LAYER + r"ffns\.0\.", r"head.detector.layers.\1.ffn."),
    (_DETECTOR_LAYER, r"head.detector.layers.\1."),
    (r"head\.gen_net\.input_proj\.", "head.generator.cells.projection."),
    (r"head\.gen_net\.img_coord_embed\.", "head.generator.cells.coordinates."),
    (r"head\.gen_net\.label_embed\.", "head.generator.label_embed."),
    (r"head\.gen_net\.bbox_context_embed\.", "head.generator.corner_embed."),
    (r"head\.gen_net\.coord_embed\.", "head.generator.axis_embed."),
    (r"head\.gen_net\.vertex_embed\.", "head.generator.value_embed."),
    (r"head\.gen_net\.pos_embeddings\.", "head.generator.position_embed."),
    (r"head\.gen_net\._project_to_logits\.", "head.generator.to_logits."),
    # torch's MultiheadAttention holds `in_proj_weight`; here a Linear holds `in_proj.weight`.
    (_GENERATOR_LAYER + r"self_attn\.in_proj_", r"head.generator.layers.\1.self_attn.in_proj."),
    (
        _GENERATOR_LAYER + r"multihead_attn\.in_proj_",
        r"head.generator.layers.\1.cross_attn.in_proj.",
    ),
    (_GENERATOR_LAYER + r"multihead_attn\.", r"head.generator.layers.\1.cross_attn."),
    (_GENERATOR_LAYER, r"head.generator.layers.\1."),
)
"""VectorMapNet."""

# A name that only models of one kind have.
_KINDS: tuple[tuple[str, Rules], ...] = (
    ("pts_bbox_head.transformer.predicter.", OCCUPANCY),
    ("bev_constructor.", OPENLANE),
    ("backbone.img_backbone.", VECTOR_MAP),
)


def convert_driving(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of the original's driving models.

    The prefix ``module.`` of data-parallel training comes off.

    Args:
        state_dict: weights of a whole model.

    Returns:
        The same tensors under our names, less the buffers and weights that computed nothing there.
        Weights of another model stay as they are.

    Raises:
        TypeError: a value is no tensor, as in a whole checkpoint.
        ValueError: two keys become one, or a key has no place here.
    """
    require_tensors("convert_driving", state_dict)
    weights = dict(state_dict)
    rules = _rules_of(weights)
    if rules is None:
        return weights
    converted: dict[str, Tensor] = {}
    for old, value in weights.items():
        new = rename(old.removeprefix("module."), rules)
        if new is None:
            continue
        # A file with a name both with and without `module.` would lose one of the two.
        if new in converted:
            raise ValueError(f"convert_driving: expected one tensor for {new}, got {old} as well")
        converted[new] = value
    return converted


def convert_on_load(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Rename the original's weights in place, before ``module`` takes its own from them.

    For ``register_load_state_dict_pre_hook`` of a whole model.

    Args:
        module: what loads.
        state_dict: of ``module`` and of what it may be a part of.
        prefix: what the names of ``module`` begin with there.
    """
    convert_in_place(convert_driving, state_dict, prefix)


def _rules_of(keys: Iterable[str]) -> Rules | None:
    names = [key.removeprefix("module.") for key in keys]
    for beginning, rules in _KINDS:
        if any(name.startswith(beginning) for name in names):
            return rules
    return None


def rename(key: str, rules: Rules) -> str | None:
    """Return our name for one of the original's, or None if it is dropped.

    Raises:
        ValueError: none of the rules fits.
    """
    for pattern, replacement in rules:
        if match := re.match(pattern, key):
            return None if replacement is None else match.expand(replacement) + key[match.end() :]
    raise ValueError(
        f"convert_driving: expected a name of one of the original's driving models, got {key}"
    )
