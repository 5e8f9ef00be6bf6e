"""DINO (arXiv 2203.03605) as the released detectors compute it, on top of mmdet's.

mmdet's DINO differs from it in three places that released weights notice: the distribution of mmdet
that is maintained today encodes a box in twice as many numbers before the decoder's
``ref_point_head``, the head rounds boxes at the image's edge differently, and all names are others.

Shape legend: N batch, Q queries (denoising ones first), D ``embed_dims``, L feature levels, T sum
of the levels' pixels. Boxes are (cx, cy, w, h) in 0-1 of the valid image.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable
from typing import Any

import torch
from mmcv.cnn.bricks.transformer import FFN
from mmdet.models.detectors import DINO
from mmdet.models.layers import (
    MLP,
    CdnQueryGenerator,
    DinoTransformerDecoder,
    coordinate_to_encoding,
    inverse_sigmoid,
)
from mmdet.registry import MODELS
from mmdet.structures.bbox import bbox_xyxy_to_cxcywh
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from internimage.integrations.openmmlab.convert import convert_on_load

INVERSE_SIGMOID_EPS = 1e-3
"""Box coordinates this close to 0 or 1 count as this close; mmdet's head has 1e-5."""


class ReleasedDinoDecoder(DinoTransformerDecoder):
    """DINO's decoder with positions of 2D numbers, the same under every version of mmdet."""

    def _init_layers(self) -> None:
        super()._init_layers()
        # Each of the four coordinates is encoded in D / 2 numbers. Takes the place of the parent's,
        # which has 4D inputs in today's distribution and 2D in mmdet 3.3; this can go when all
        # versions in use have 2D.
        self.ref_point_head = MLP(2 * self.embed_dims, self.embed_dims, self.embed_dims, 2)

    def forward(
        self,
        query: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None,
        self_attn_mask: Tensor | None,
        reference_points: Tensor,
        spatial_shapes: Tensor,
        level_start_index: Tensor,
        valid_ratios: Tensor,
        reg_branches: Iterable[nn.Module],
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor]:
        """Refine boxes layer by layer.

        Args:
            query: what the queries start from (N, Q, D).
            value: the encoder's output (N, T, D).
            key_padding_mask: where it is padding (N, T), or None.
            self_attn_mask: which queries do not see each other (Q, Q), or None.
            reference_points: the queries' boxes (N, Q, 4).
            spatial_shapes: height and width of every level (L, 2), pixels.
            level_start_index: where each level starts in T (L,).
            valid_ratios: valid share of every level's width and height (N, L, 2), 0-1.
            reg_branches: what predicts a layer's change of boxes.
            **kwargs: passed on to the layers.

        Returns:
            Normalised queries of every layer (layers, N, Q, D), and the boxes before the first and
            after every layer (layers + 1, N, Q, 4).
        """
        to_padded = torch.cat((valid_ratios, valid_ratios), dim=-1)[:, None]  # (N, 1, L, 4)
        boxes = reference_points
        states, all_boxes = [], [boxes]
        for layer, branch in zip(
            self.layers, reg_branches, strict=False
        ):  # one more: the encoder's
            level_boxes = boxes[:, :, None] * to_padded  # (N, Q, L, 4)
            # Of the finest level; the others differ from it by the rounding of their padding alone.
            encoding = coordinate_to_encoding(
                level_boxes[:, :, 0], num_feats=self.embed_dims // 2
            )  # (N, Q, 2D)
            query = layer(
                query,
                query_pos=self.ref_point_head(encoding),  # (N, Q, D)
                value=value,
                key_padding_mask=key_padding_mask,
                self_attn_mask=self_attn_mask,
                spatial_shapes=spatial_shapes,
                level_start_index=level_start_index,
                valid_ratios=valid_ratios,
                reference_points=level_boxes,
                **kwargs,
            )
            # Not the normalised query: the norm is for what the head sees.
            logits = branch(query) + inverse_sigmoid(boxes, eps=INVERSE_SIGMOID_EPS)
            # The next layer starts from constants, the loss of its boxes learns both layers:
            # "look forward twice" (section 3.5 of the paper).
            all_boxes.append(logits.sigmoid())
            boxes = all_boxes[-1].detach()
            states.append(self.norm(query))  # one norm for all layers
        return torch.stack(states), torch.stack(all_boxes)


class DenoisingQueries(CdnQueryGenerator):
    """mmdet's denoising queries, which may also be without noise (a scale of 0)."""

    def generate_dn_label_query(self, gt_labels: Tensor, num_groups: int) -> Tensor:
        """Return the embeddings (2 * groups * targets, D) of the targets' noised classes."""
        if self.label_noise_scale > 0:
            return super().generate_dn_label_query(gt_labels, num_groups)
        # mmdet asserts a scale above 0. Twice: a group has a positive and a negative of each.
        return self.label_embedding(gt_labels.repeat(2 * num_groups))

    def generate_dn_bbox_query(self, gt_bboxes: Tensor, num_groups: int) -> Tensor:
        """Return the noised boxes (2 * groups * targets, 4) as logits."""
        if self.box_noise_scale > 0:
            return super().generate_dn_bbox_query(gt_bboxes, num_groups)
        # (2 * groups * targets, 4), x1 y1 x2 y2 in 0-1.
        boxes = gt_bboxes.repeat(2 * num_groups, 1).clamp(min=0.0, max=1.0)
        return inverse_sigmoid(bbox_xyxy_to_cxcywh(boxes), eps=INVERSE_SIGMOID_EPS)


class RecomputedFFN(FFN):
    """mmcv's feed-forward layer, computed again in the backward pass to save memory."""

    def forward(self, x: Tensor, identity: Tensor | None = None) -> Tensor:
        """Map (N, ..., D) to the same shape."""
        if self.training and torch.is_grad_enabled():
            return checkpoint(super().forward, x, identity, use_reentrant=False)
        return super().forward(x, identity)


@MODELS.register_module()
class InternImageDINO(DINO):
    """mmdet's DINO with the released detectors' arithmetic.

    Weights of released detectors, with their old names, are converted when they are loaded,
    whoever loads them. The config's dictionaries are copied, not changed: one config can build
    several models.

    Args:
        bbox_head: the head, of type ``InternImageDINOHead``.
        dn_cfg: denoising queries, the fields of mmdet's ``CdnQueryGenerator``; noise scales may be
            0.
        as_two_stage: fields of mmdet's; DINO knows True alone.
        with_box_refine: likewise.
        with_cp: compute the feed-forward layers again in the backward pass to save memory
            (``use_checkpoint`` of the original's ``ffn_cfgs``).
        **kwargs: the other fields of mmdet's ``DINO``.

    Raises:
        ValueError: ``dn_cfg`` is missing or holds a negative scale, or a flag is False.
    """

    def __init__(
        self,
        *,
        bbox_head: dict[str, Any],
        dn_cfg: dict[str, Any],
        as_two_stage: bool = True,
        with_box_refine: bool = True,
        with_cp: bool = False,
        **kwargs: Any,
    ) -> None:
        # mmdet asserts the same, without the name of the model.
        for name, flag in {
            "as_two_stage": as_two_stage,
            "with_box_refine": with_box_refine,
        }.items():
            if flag is not True:
                raise ValueError(f"InternImageDINO: expected {name} = True, got {flag}")
        if not isinstance(dn_cfg, dict):
            raise ValueError(
                f"InternImageDINO: expected dn_cfg = fields of denoising queries, got {dn_cfg!r}"
            )
        for name in ("label_noise_scale", "box_noise_scale"):
            if dn_cfg.get(name, 0.0) < 0:
                raise ValueError(
                    f"InternImageDINO: expected dn_cfg with {name} >= 0, got {dn_cfg[name]}"
                )
        dn_cfg = copy.deepcopy(dn_cfg)
        super().__init__(
            bbox_head=copy.deepcopy(bbox_head),  # mmdet writes the number of layers into it
            dn_cfg=dn_cfg,
            as_two_stage=True,
            with_box_refine=True,
            **kwargs,
        )
        self.dn_query_generator = DenoisingQueries(**dn_cfg)  # mmdet has filled in the rest
        if with_cp:
            # Before any weight is drawn or loaded: init_weights comes later. mmdet's own num_cp is
            # for whole layers, in the encoder alone, and needs fairscale.
            for layer in (*self.encoder.layers, *self.decoder.layers):
                layer.ffn = RecomputedFFN(**layer.ffn_cfg)
        self.register_load_state_dict_pre_hook(convert_on_load)

    def _init_layers(self) -> None:
        decoder: dict[str, Any] = self.__dict__["decoder"]  # the config: no module yet
        if not decoder.get("return_intermediate", True):
            warnings.warn(
                "InternImageDINO: decoder.return_intermediate = False has no effect: the heads of "
                "all layers learn",
                stacklevel=2,
            )
        super()._init_layers()
        self.decoder = ReleasedDinoDecoder(**decoder)
