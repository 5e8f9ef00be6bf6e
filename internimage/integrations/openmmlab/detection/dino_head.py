"""DINO's head as the released detectors compute it, with the federated loss as an option."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.dense_heads import DINOHead
from mmdet.models.layers import inverse_sigmoid
from mmdet.registry import MODELS
from mmengine.structures import InstanceData
from torch import Tensor

from internimage.integrations.openmmlab.detection.dino import INVERSE_SIGMOID_EPS
from internimage.integrations.openmmlab.detection.federated_loss import FederatedClasses

# Targets are made image by image, from nothing but the image's objects and its metadata: the
# classes of an image travel in the latter.
_CLASS_WEIGHTS = "federated_class_weights"


@MODELS.register_module()
class InternImageDINOHead(DINOHead):
    """mmdet's DINO head with the released detectors' rounding at the image's edge.

    Shape legend: N batch, Q queries, D width, K classes.

    Args:
        fed_loss: arguments of :class:`FederatedClasses` without ``total_classes``: each image
            learns only some classes. None learns all.
        **kwargs: the fields of mmdet's ``DINOHead``.

    Raises:
        ValueError: an argument of ``fed_loss`` is unknown or out of range.
    """

    def __init__(self, *, fed_loss: dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.federated_classes: FederatedClasses | None = None
        if fed_loss is not None:
            self.federated_classes = FederatedClasses(total_classes=self.num_classes, **fed_loss)

    def forward(self, hidden_states: Tensor, references: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return class logits (layers, N, Q, K) and boxes (layers, N, Q, 4) of every layer.

        Args:
            hidden_states: the queries after every decoder layer (layers, N, Q, D).
            references: the boxes that go into every layer, and the last one's result, each
                (N, Q, 4), 0-1.
        """
        logits, boxes = [], []
        # One reference and one pair of branches more than layers: the last result, the encoder's.
        for state, reference, cls_branch, reg_branch in zip(
            hidden_states, references, self.cls_branches, self.reg_branches, strict=False
        ):
            logits.append(cls_branch(state))
            # The decoder's eps: with mmdet's 1e-5 boxes at an edge move by up to 0.4.
            start = inverse_sigmoid(reference, eps=INVERSE_SIGMOID_EPS)
            boxes.append((reg_branch(state) + start).sigmoid())
        return torch.stack(logits), torch.stack(boxes)

    def loss_by_feat(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Return the losses, as mmdet's; with ``fed_loss`` the classes are drawn here, once."""
        # mmdet passes by position: class logits, boxes, the encoder's two, targets, metas, dn_meta
        if self.federated_classes is None:
            return super().loss_by_feat(*args, **kwargs)
        targets, metas = args[4], args[5]
        metas = [
            dict(meta) | {_CLASS_WEIGHTS: self.federated_classes.draw(target.labels)}
            for target, meta in zip(targets, metas, strict=True)
        ]
        return super().loss_by_feat(*args[:5], metas, *args[6:], **kwargs)

    def _get_targets_single(
        self, cls_score: Tensor, bbox_pred: Tensor, gt_instances: InstanceData, img_meta: dict
    ) -> tuple:
        targets = super()._get_targets_single(cls_score, bbox_pred, gt_instances, img_meta)
        return _weigh_classes(targets, img_meta)

    def _get_dn_targets_single(
        self, gt_instances: InstanceData, img_meta: dict, dn_meta: dict[str, int]
    ) -> tuple:
        targets = super()._get_dn_targets_single(gt_instances, img_meta, dn_meta)
        return _weigh_classes(targets, img_meta)


def _weigh_classes(targets: tuple, img_meta: dict[str, Any]) -> tuple:
    """Turn the weights (queries,) of one image's class losses into (queries, K)."""
    if _CLASS_WEIGHTS not in img_meta:
        return targets
    labels, label_weights, *others = targets
    # mmdet's focal loss takes weights of its own shape as they are.
    return (labels, label_weights[:, None] * img_meta[_CLASS_WEIGHTS], *others)  # (queries, K)
