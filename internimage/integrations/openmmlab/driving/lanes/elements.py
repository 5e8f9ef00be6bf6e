"""Traffic elements: mmdet's Deformable DETR on the feature maps of the front camera.

Letters: B batch, C channels, h w pixels of a feature map, Q queries, k true elements of a frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from mmdet.models.detectors import DeformableDETR
from mmdet.models.task_modules.assigners import AssignResult, HungarianAssigner
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from mmengine.structures import BaseDataElement, InstanceData
from torch import Tensor, nn

from internimage.integrations.openmmlab.driving.assignment import assign
from internimage.integrations.openmmlab.driving.data.openlane_layout import FRONT
from internimage.integrations.openmmlab.driving.sample import DrivingSample


class ElementOutputs(NamedTuple):
    """What the detector says after each of its L layers.

    Attributes:
        logits: (L, B, Q, classes).
        boxes: (L, B, Q, 4), centre, width and height as fractions of the image without padding.
        states: (B, Q, C), of the last layer.
    """

    logits: Tensor
    boxes: Tensor
    states: Tensor


class _FiniteAssigner(HungarianAssigner):
    """Matches by mmdet's costs, where mmdet's own assignment refuses those of diverged weights."""

    def assign(
        self,
        pred_instances: InstanceData,
        gt_instances: InstanceData,
        img_meta: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> AssignResult:
        """Return for each query which element it has, from 1, or 0 for none."""
        # This can go once mmdet's assigner takes costs that are no numbers.
        costs = [cost(pred_instances, gt_instances, img_meta) for cost in self.match_costs]
        queries, elements = assign(torch.stack(costs).sum(dim=0))
        matched = gt_instances.labels.new_zeros(len(pred_instances))
        matched[queries] = elements + 1
        labels = torch.full_like(matched, -1)
        labels[queries] = gt_instances.labels[elements]
        return AssignResult(len(gt_instances), matched, None, labels)


class TrafficElementDetector(DeformableDETR):
    """Deformable DETR with box refinement (arXiv 2010.04159), on feature maps that exist already.

    Args:
        num_classes: attributes that an element can have.
        embed_dims: C.
        num_queries: Q.
        num_layers: of the encoder and of the decoder, each.
        num_levels: feature maps.
        num_heads: of the attentions; divides C.
        num_points: that a head samples in each map.
        feedforward_channels: of the feed-forward networks.
        dropout: after attentions and in feed-forward networks, 0-1.
        cls_weight: of the focal loss and of its cost in the matching.
        box_weight: of the L1 loss and of its cost.
        iou_weight: of the GIoU loss and of its cost.
        init_cfg: that of mmengine's ``BaseModule``.
    """

    def __init__(
        self,
        *,
        num_classes: int = 13,
        embed_dims: int = 256,
        num_queries: int = 100,
        num_layers: int = 6,
        num_levels: int = 4,
        num_heads: int = 8,
        num_points: int = 4,
        feedforward_channels: int = 512,
        dropout: float = 0.1,
        cls_weight: float = 1.0,
        box_weight: float = 2.5,
        iou_weight: float = 1.0,
        init_cfg: dict | None = None,
    ) -> None:
        attention = {"embed_dims": embed_dims, "num_heads": num_heads, "batch_first": True}
        deformable = {
            **attention,
            "num_levels": num_levels,
            "num_points": num_points,
            "dropout": dropout,
        }
        feedforward = {
            "embed_dims": embed_dims,
            "feedforward_channels": feedforward_channels,
            "ffn_drop": dropout,
        }
        super().__init__(
            # The maps come from outside: nothing is to be computed here.
            backbone={"type": nn.Identity},
            encoder={
                "num_layers": num_layers,
                "layer_cfg": {"self_attn_cfg": dict(deformable), "ffn_cfg": dict(feedforward)},
            },
            decoder={
                "num_layers": num_layers,
                "return_intermediate": True,  # the loss is of every layer
                # mmdet's default is a norm that it refuses for this decoder.
                "post_norm_cfg": None,
                "layer_cfg": {
                    "self_attn_cfg": {
                        **attention,
                        "attn_drop": dropout,
                        "dropout_layer": {"type": "Dropout", "drop_prob": dropout},
                    },
                    "cross_attn_cfg": deformable,
                    "ffn_cfg": feedforward,
                },
            },
            positional_encoding={
                "num_feats": embed_dims // 2,
                # The sine code of Deformable DETR, of cell centres.
                "normalize": True,
                "offset": -0.5,
            },
            bbox_head={
                "type": "mmdet.DeformableDETRHead",
                "num_classes": num_classes,
                "embed_dims": embed_dims,
                # Frames of several processes are one batch, as with one process.
                "sync_cls_avg_factor": True,
                "loss_cls": {
                    "type": "mmdet.FocalLoss",
                    "use_sigmoid": True,
                    "gamma": 2.0,
                    "alpha": 0.25,
                    "loss_weight": cls_weight,
                },
                "loss_bbox": {"type": "mmdet.L1Loss", "loss_weight": box_weight},
                "loss_iou": {"type": "mmdet.GIoULoss", "loss_weight": iou_weight},
            },
            train_cfg={
                "assigner": {
                    "type": _FiniteAssigner,
                    "match_costs": [
                        {"type": "mmdet.FocalLossCost", "weight": cls_weight},
                        {"type": "mmdet.BBoxL1Cost", "weight": box_weight, "box_format": "xywh"},
                        {"type": "mmdet.IoUCost", "weight": iou_weight, "iou_mode": "giou"},
                    ],
                }
            },
            num_queries=num_queries,
            # Each layer has branches of its own and moves the boxes of the one before (appendix
            # A.4).
            with_box_refine=True,
            num_feature_levels=num_levels,
            init_cfg=init_cfg,
        )

    def forward(
        self, features: Sequence[Tensor], samples: Sequence[DrivingSample] | None
    ) -> ElementOutputs:
        """Detect the elements.

        Args:
            features: of each level, the front camera's map (B, C, h, w).
            samples: B samples, with the sizes of their images; None for images without padding.
        """
        if samples is None:
            # Any two equal sizes say that nothing is padding.
            metas = [{"img_shape": (1, 1), "batch_input_shape": (1, 1)} for _ in features[0]]
        else:
            metas = [image_meta(sample) for sample in samples]
        # mmdet reads the two sizes of a sample and nothing else; its masks hide the padding.
        inputs = self.forward_transformer(
            tuple(features), [BaseDataElement(metainfo=meta) for meta in metas]
        )
        logits, boxes = self.bbox_head(inputs["hidden_states"], inputs["references"])
        return ElementOutputs(logits, boxes, inputs["hidden_states"][-1])

    def losses(
        self, outputs: ElementOutputs, samples: Sequence[DrivingSample]
    ) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Return the losses of all layers, and which element each query of the last one has.

        The losses are of the frames that hold an element: of the others the data set does not say
        whether they were looked at. Without any such frame they are 0.

        Args:
            outputs: those of ``forward``.
            samples: B samples with ``gt_lanes``.

        Returns:
            The losses, and B times (Q,) the index of an element, -1 for none.
        """
        truths = [true_elements(sample, outputs.boxes) for sample in samples]
        metas = [image_meta(sample) for sample in samples]
        kept = [index for index, truth in enumerate(truths) if len(truth)]
        # Without any, all are taken times 0: in several processes each weight needs a gradient.
        chosen = kept or list(range(len(samples)))
        # The two None are for proposals of a two-stage DETR, which this one is not.
        losses = self.bbox_head.loss_by_feat(
            outputs.logits[:, chosen],
            outputs.boxes[:, chosen],
            None,
            None,
            [truths[index] for index in chosen],
            [metas[index] for index in chosen],
        )
        if not kept:
            losses = {name: loss * 0 for name, loss in losses.items()}
        # mmdet's head keeps its matches to itself, and the relations need those of all frames: the
        # last layer is matched once more.
        matches = []
        for index, (truth, meta) in enumerate(zip(truths, metas, strict=True)):
            # Costs are of corners in pixels: W, H, W, H.
            scale = outputs.boxes.new_tensor(meta["img_shape"][::-1]).repeat(2)
            answer = InstanceData(
                scores=outputs.logits[-1, index].detach(),
                bboxes=bbox_cxcywh_to_xyxy(outputs.boxes[-1, index].detach()) * scale,
            )
            assigned = self.bbox_head.assigner.assign(answer, truth, img_meta=meta)
            matches.append(assigned.gt_inds - 1)  # mmdet counts from 1; 0 is none
        return losses, matches

    def elements(
        self, outputs: ElementOutputs, index: int, sample: DrivingSample
    ) -> dict[str, np.ndarray]:
        """Return all Q elements of a sample, each with its best attribute.

        Args:
            outputs: those of ``forward``.
            index: of the sample in the batch.
            sample: the sample.

        Returns:
            ``boxes`` (Q, 4), corners in pixels of the front image as it lies on the disk,
            ``attributes`` (Q,) and ``box_scores`` (Q,), in the order of the queries.
        """
        scores, attributes = outputs.logits[-1, index].float().sigmoid().max(-1)
        height, width = image_meta(sample)["img_shape"]
        boxes = bbox_cxcywh_to_xyxy(outputs.boxes[-1, index].float()).clamp(0, 1).cpu().numpy()
        # x and y are scaled apart: the front image stands upright, the network's input lies.
        scale = np.array([width, height]) / sample.metainfo["scale_factors"][FRONT]
        return {
            "boxes": (boxes * np.tile(scale, 2)).astype(np.float32),
            "attributes": attributes.cpu().numpy(),
            "box_scores": scores.cpu().numpy(),
        }


def image_meta(sample: DrivingSample) -> dict[str, Any]:
    """Return the sizes (H, W) that mmdet asks for: without padding and with it."""
    return {
        "img_shape": tuple(sample.metainfo["unpadded_shape"]),
        "batch_input_shape": tuple(sample.metainfo["image_shape"]),
    }


def true_elements(sample: DrivingSample, like: Tensor) -> InstanceData:
    """Return boxes (k, 4), corners in pixels of the network's input, and labels (k,).

    Args:
        sample: with ``gt_lanes``.
        like: names the device and the type.
    """
    lanes = sample.gt_lanes
    scale = np.tile(sample.metainfo["scale_factors"][FRONT], 2)
    return InstanceData(
        bboxes=torch.as_tensor(lanes["boxes"] * scale).to(like),
        labels=torch.as_tensor(lanes["attributes"]).to(like.device),
    )
