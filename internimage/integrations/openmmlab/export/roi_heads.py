"""What an R-CNN's heads do with boxes, in tensors of a fixed shape.

Shape legend: N images, P proposals of an image, K detections of an image, C classes. Boxes are
left, top, right, bottom in pixels of the model's input.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmdet.models.roi_heads.bbox_heads import BBoxHead
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from torch import Tensor, nn

from internimage.integrations.openmmlab.export.box_operators import (
    DROPPED,
    keep_scores,
    roi_align,
)
from internimage.integrations.openmmlab.export.boxes import (
    best,
    decode_boxes,
    look_up,
    pick,
)

ELSEWHERE = (0.0, 0.0, 1.0, 1.0)
"""The box that a level is asked for instead of one of another level: small, inside, not empty.

For boxes far outside or of no size OpenVINO's RoiAlign answers NaN; for those of no size TensorRT's
divides by 0, the number of its samples.
"""


class RoIFeatures(nn.Module):
    """Features of boxes, each from the level that suits its size, as ``SingleRoIExtractor`` does.

    Every level is asked for as many boxes, so that shapes are fixed; what it answers for those of
    other levels counts as 0, so that the sum is the feature of the right level. So it does for
    boxes without any area where mmcv takes no sample: it answers 0 itself.

    Args:
        extractor: mmdet's.
    """

    def __init__(self, extractor: SingleRoIExtractor) -> None:
        super().__init__()
        self._layers = [
            (tuple(layer.output_size), layer.spatial_scale, layer.sampling_ratio, layer.aligned)
            for layer in extractor.roi_layers
        ]
        self._finest_scale = extractor.finest_scale

    def forward(self, features: Sequence[Tensor], boxes: Tensor) -> Tensor:
        """Return (N * P, channels, rows, columns) of boxes (N, P, 4)."""
        num_images, num_boxes, _ = boxes.shape
        images = torch.arange(num_images, device=boxes.device)[:, None].expand(-1, num_boxes)
        images, boxes = images.reshape(-1), boxes.flatten(0, 1)  # (N P,), (N P, 4)
        level_of = self._levels(boxes)
        elsewhere = boxes.new_tensor(ELSEWHERE)
        found: Tensor | None = None
        for level, (output_size, scale, sampling_ratio, aligned) in enumerate(self._layers):
            is_asked = level_of == level
            # Without aligned a box has sides of a pixel at least, with a ratio samples in any case.
            if aligned and sampling_ratio == 0:
                scaled = boxes * scale - 0.5  # as RoIAlign does, to the same last digit
                is_asked = is_asked & (scaled[:, 2] > scaled[:, 0])
                is_asked = is_asked & (scaled[:, 3] > scaled[:, 1])
            # mmdet asks a level for its own boxes alone, but how many these are hangs on the image.
            answer = roi_align(
                features[level],
                boxes.where(is_asked[:, None], elsewhere),
                images,
                output_size,
                scale,
                sampling_ratio,
                aligned,
            )
            # where, not a product: it would keep a NaN.
            answer = answer.where(is_asked[:, None, None, None], 0.0)
            found = answer if found is None else found + answer
        assert found is not None
        return found

    def _levels(self, boxes: Tensor) -> Tensor:
        """Return the level of each of R boxes, (R,), from 0."""
        size = boxes[:, 2:] - boxes[:, :2]
        # The 1e-6 is mmdet's, and moves the border between levels with it.
        ratio = (size[:, 0] * size[:, 1]).sqrt() / self._finest_scale + 1e-6
        level = torch.zeros_like(ratio, dtype=torch.int64)
        for coarser in range(1, len(self._layers)):
            # mmdet takes the logarithm of base 2 and rounds down. ONNX has the natural one alone,
            # and a quotient of two may be rounded to below a whole number.
            level = level + (ratio >= 2**coarser)
        return level


class BoxStage(nn.Module):
    """A box head with its features.

    Args:
        extractor: mmdet's.
        head: mmdet's.
    """

    def __init__(self, extractor: SingleRoIExtractor, head: BBoxHead) -> None:
        super().__init__()
        self.features = RoIFeatures(extractor)
        self.head = head
        self.coder = head.bbox_coder
        self.num_classes = head.num_classes
        self.is_class_agnostic = head.reg_class_agnostic

    def forward(self, features: Sequence[Tensor], boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (N, P, C + 1) and deltas (N, P, 4 * C) or (N, P, 4) of boxes (N, P, 4)."""
        num_images, num_boxes, _ = boxes.shape
        logits, deltas = self.head(self.features(features, boxes))
        return (
            logits.view(num_images, num_boxes, -1),
            deltas.view(num_images, num_boxes, -1),
        )

    def refine(self, boxes: Tensor, logits: Tensor, deltas: Tensor, image_size: Tensor) -> Tensor:
        """Return boxes (N, P, 4) moved as their best class wants."""
        if not self.is_class_agnostic:
            # The last logit is the background's, which has no deltas.
            label = logits[:, :, :-1].argmax(dim=2)[:, :, None, None]
            of_classes = deltas.unflatten(2, (self.num_classes, 4))  # (N, P, C, 4)
            deltas = of_classes.gather(2, label.expand(-1, -1, 1, 4)).squeeze(2)
        return decode_boxes(self.coder, boxes, deltas, image_size)

    def boxes_of_classes(self, boxes: Tensor, deltas: Tensor, image_size: Tensor) -> Tensor:
        """Return boxes (N, P, C, 4), one for each class."""
        num_images, num_boxes, _ = boxes.shape
        shape = (num_images, num_boxes, self.num_classes, 4)
        if self.is_class_agnostic:
            return decode_boxes(self.coder, boxes, deltas, image_size)[:, :, None].expand(shape)
        repeated = boxes[:, :, None].expand(shape).flatten(1, 2)  # (N, P C, 4)
        decoded = decode_boxes(self.coder, repeated, deltas.reshape_as(repeated), image_size)
        return decoded.view(shape)


def detect(
    boxes: Tensor,
    scores: Tensor,
    *,
    score_threshold: float,
    iou_threshold: float,
    num_detections: int,
) -> tuple[Tensor, Tensor]:
    """Choose detections as mmdet's ``multiclass_nms`` does, each class for itself.

    Args:
        boxes: a box for each class, (N, P, C, 4).
        scores: (N, P, C).
        score_threshold: scores are above it, 0-1.
        iou_threshold: overlap above which the worse of two boxes of a class is suppressed, 0-1.
        num_detections: K.

    Returns:
        Left, top, right, bottom and score (N, K, 5), best first, and classes (N, K); 0 and -1 where
        there is no detection.
    """
    num_images, _, num_classes, _ = boxes.shape
    # One group a class of an image. mmcv has one group an image, and moves classes apart by adding
    # to their boxes.
    kept = keep_scores(
        boxes.transpose(1, 2).flatten(0, 1),  # (N C, P, 4)
        scores.transpose(1, 2).flatten(0, 1),  # (N C, P)
        iou_threshold,
        score_threshold,
    )
    # Back in mmdet's order, in which the first of equal scores wins.
    kept = kept.view(num_images, num_classes, -1).transpose(1, 2).flatten(1)  # (N, P C)
    kept, indices = best(kept, num_detections)
    is_there = kept > DROPPED
    found = torch.cat([pick(boxes.flatten(1, 2), indices), kept[:, :, None]], dim=2)
    classes = torch.arange(num_classes, device=boxes.device).repeat(boxes.shape[1])  # (P C,)
    return found * is_there[:, :, None], look_up(classes, indices).where(is_there, -1)


class MaskStage(nn.Module):
    """A mask head with its features.

    Args:
        extractor: mmdet's.
        head: mmdet's.
    """

    def __init__(self, extractor: SingleRoIExtractor, head: FCNMaskHead) -> None:
        super().__init__()
        self.features = RoIFeatures(extractor)
        self.head = head
        self.is_class_agnostic = head.class_agnostic

    def forward(self, features: Sequence[Tensor], boxes: Tensor, labels: Tensor) -> Tensor:
        """Return probabilities (N, K, rows, columns) of boxes (N, K, 4) with classes (N, K)."""
        num_images, num_boxes, _ = boxes.shape
        logits = self.head(self.features(features, boxes))  # (N * K, C or 1, rows, columns)
        if not self.is_class_agnostic:
            # -1, of what is no detection, would be an index out of range.
            index = labels.clamp(min=0).view(-1, 1, 1, 1)
            logits = logits.gather(1, index.expand(-1, 1, *logits.shape[2:]))
        masks = logits.sigmoid().view(num_images, num_boxes, *logits.shape[2:])
        # A product would keep a runtime's NaN of a box that is none.
        return masks.where((labels >= 0)[:, :, None, None], 0.0)
