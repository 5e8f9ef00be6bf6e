"""DINO's choice of boxes for mmdeploy's exporter, right for every image of a batch.

mmdeploy 1.3.1 puts the queries of all images behind one another and looks for those of image n at
n times ``max_per_img``, where n times the number of queries is right: from the second image on
boxes are of other queries, with the scores of the right ones. This can go with an mmdeploy that
counts by queries. Importing the module registers what is here; mmdeploy has to be there before
(:func:`~.mmdeploy_adapter.import_mmdeploy`), and mmdet.

Shape legend: N images, Q queries, C classes, K detections of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmdeploy.core import FUNCTION_REWRITER
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from torch import Tensor

HEADS = ("DETRHead", "DeformableDETRHead")
"""Of ``mmdet.models.dense_heads``, those for which mmdeploy has a function of its own."""


def choose_boxes(
    self: Any,
    logits_of_layers: Sequence[Tensor],
    boxes_of_layers: Sequence[Tensor],
    batch_img_metas: Sequence[dict[str, Any]],
    rescale: bool = True,
) -> tuple[Tensor, Tensor]:
    """Take the place of ``predict_by_feat`` of a head.

    Args:
        self: the head.
        logits_of_layers: (N, Q, C), or (N, Q, C + 1) with a background; the last layer counts.
        boxes_of_layers: (N, Q, 4), centre and size, 0-1.
        batch_img_metas: the first has ``img_shape``, height and width of the input, pixels.
        rescale: has no effect, as in mmdeploy: its runner takes boxes to the original image.

    Returns:
        Left, top, right, bottom and score (N, K, 5), best first, and classes (N, K).
    """
    logits, boxes = logits_of_layers[-1], boxes_of_layers[-1]
    count = self.test_cfg.get("max_per_img", logits.shape[1])  # mmdet's default
    if self.loss_cls.use_sigmoid:
        scores, indices = logits.sigmoid().flatten(1).topk(count, dim=1)
        queries, labels = indices // self.num_classes, indices % self.num_classes
    else:
        scores, labels = logits.softmax(dim=-1)[..., :-1].max(dim=-1)
        scores, queries = scores.topk(count, dim=1)
        labels = labels.gather(1, queries)
    # By gather no image's place in the batch is counted at all.
    boxes = boxes.gather(1, queries.unsqueeze(-1).expand(-1, -1, 4))
    size = batch_img_metas[0]["img_shape"]
    if not isinstance(size, Tensor):
        size = torch.tensor(size, device=boxes.device)
    # (2,), height first, -> (4,), width first
    corners = bbox_cxcywh_to_xyxy(boxes).clamp(0.0, 1.0) * size.flip(0).repeat(2)
    return torch.cat([corners, scores.unsqueeze(-1)], dim=-1), labels


for _head in HEADS:
    # Of this backend, which all graphs here are made for: mmdeploy prefers it to its own, which is
    # for all, in whatever order they are registered.
    FUNCTION_REWRITER.register_rewriter(
        f"mmdet.models.dense_heads.{_head}.predict_by_feat", backend="onnxruntime"
    )(choose_boxes)
