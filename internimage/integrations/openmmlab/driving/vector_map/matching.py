"""Which query learns which element, and what the key-point detector learns from it.

B batch, E queries, P elements of a frame, K classes. Boxes are in cells of the canvas.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmdet.models.losses import FocalLoss, SmoothL1Loss
from mmdet.models.task_modules.assigners import FocalLossCost, IoUCost
from mmdet.utils import reduce_mean
from mmengine.structures import InstanceData
from torch import Tensor, nn

from internimage.integrations.openmmlab.driving.assignment import assign


def match_elements(
    scores: Tensor,
    boxes: Tensor,
    labels: Tensor,
    targets: Tensor,
    *,
    # Appendix C.4, as the 1 of the IoU.
    cls_weight: float = 2.0,
    box_weight: float = 0.1,
) -> tuple[Tensor, Tensor]:
    """Return queries and elements, index by index, that belong together at the least cost.

    The cost is that of VectorMapNet: what the class adds to the focal loss, the L1 distance of the
    boxes and their generalised IoU.

    Args:
        scores: logits (E, K).
        boxes: (E, 4).
        labels: (P,).
        targets: boxes (P, 4).
        cls_weight: factor of the class.
        box_weight: of the distance.
    """
    corners = boxes.float().unflatten(1, (2, 2))
    # Corners come in any order; an overlap is of lower and upper ones.
    ordered = torch.cat([corners.amin(dim=1), corners.amax(dim=1)], dim=1)
    found = InstanceData(scores=scores.float(), bboxes=ordered)
    wanted = InstanceData(labels=labels, bboxes=targets)
    cost = (
        # mmdet's costs take logits as scores; (E, P) each.
        FocalLossCost(weight=cls_weight)(found, wanted)
        + IoUCost(iou_mode="giou")(found, wanted)
        + box_weight * torch.cdist(boxes.float(), targets, p=1)
    )
    return assign(cost)


class KeyPointLoss(nn.Module):
    """Focal loss of the classes and smooth L1 loss of the boxes, of every layer.

    Args:
        cls_weight: factor of the classes' loss, and in the matching.
        box_weight: factor of the boxes' loss, and in the matching.
        beta: cells at which the smooth L1 loss becomes linear.
    """

    def __init__(self, cls_weight: float = 2.0, box_weight: float = 0.1, beta: float = 0.5) -> None:
        super().__init__()
        self.costs = {"cls_weight": cls_weight, "box_weight": box_weight}
        # The paper's loss has an IoU of weight 1 as well; the released model was trained without,
        # and has it in the matching alone.
        self.classes = FocalLoss(use_sigmoid=True, loss_weight=cls_weight)
        self.boxes = SmoothL1Loss(beta=beta, loss_weight=box_weight)

    def forward(
        self, scores: Tensor, boxes: Tensor, labels: Sequence[Tensor], targets: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """Return the losses; those of all layers but the last with their number in front.

        Args:
            scores: logits (layers, B, E, K).
            boxes: (layers, B, E, 4).
            labels: (P,) of each frame.
            targets: (P, 4) of each frame.
        """
        losses = {}
        for index, layer in enumerate(zip(scores, boxes, strict=True)):
            prefix = "" if index == len(scores) - 1 else f"d{index}."
            loss_cls, loss_box = self._layer(*layer, labels, targets)
            losses.update({f"{prefix}loss_cls": loss_cls, f"{prefix}loss_box": loss_box})
        return losses

    def _layer(
        self, scores: Tensor, boxes: Tensor, labels: Sequence[Tensor], targets: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        num_classes = scores.shape[-1]
        # (B, E) and (B, E, 4): queries that nobody matches have no box to learn.
        learnt = labels[0].new_full(scores.shape[:2], num_classes)  # that is: no element
        goals, weights = boxes.detach().clone(), torch.zeros_like(boxes)
        for i, (own_labels, own_targets) in enumerate(zip(labels, targets, strict=True)):
            with torch.no_grad():
                queries, elements = match_elements(
                    scores[i], boxes[i], own_labels, own_targets, **self.costs
                )
            learnt[i, queries] = own_labels[elements]
            goals[i, queries] = own_targets[elements].to(goals.dtype)
            weights[i, queries] = 1 / 4  # the mean of the four numbers
        # Of all ranks, so that an element weighs the same on each.
        matched = reduce_mean((learnt < num_classes).sum().float()).clamp(min=1)
        loss_cls = self.classes(scores.flatten(0, 1), learnt.flatten(), avg_factor=matched)
        # The goal of an unmatched query is its own box, of weight 0: no mask, and a gradient of 0
        # even of a frame without elements.
        loss_box = self.boxes(boxes, goals, weights, avg_factor=matched)
        return loss_cls, loss_box
