"""Faster, Mask and Cascade R-CNN of mmdet from images to detections, in tensors of a fixed shape.

The modules with weights are mmdet's own. What mmdet does between and behind them has shapes that
depend on what is found; here it has the same results in fixed shapes, so that it can be exported.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from mmdet.models.detectors import TwoStageDetector
from torch import Tensor, nn

from internimage.export.half import to_half
from internimage.integrations.openmmlab.export.box_operators import DROPPED
from internimage.integrations.openmmlab.export.proposals import ANY_SCORE, Proposals
from internimage.integrations.openmmlab.export.pyramid import Pyramid
from internimage.integrations.openmmlab.export.rcnn_settings import check_rcnn, stages_of
from internimage.integrations.openmmlab.export.roi_heads import BoxStage, MaskStage, detect


class ExportableRCNN(nn.Module):
    """An R-CNN whose results are those of ``model.predict``, padded to a fixed number.

    Args:
        model: of mmdet, in evaluation mode.
        blue_first: whether the model sees blue, green, red; images come as red, green, blue.

    Raises:
        ValueError: a head or a setting is none that is known here.
    """

    def __init__(self, model: TwoStageDetector, *, blue_first: bool = False) -> None:
        super().__init__()
        check_rcnn(model)
        rpn, rcnn, head = model.test_cfg.rpn, model.test_cfg.rcnn, model.roi_head
        self.pyramid: nn.Module = Pyramid(model, blue_first=blue_first)
        self.proposals = Proposals(
            model.rpn_head,
            num_before=rpn.nms_pre,
            num_after=rpn.max_per_img,
            iou_threshold=rpn.nms.iou_threshold,
            min_size=rpn.get("min_bbox_size", -1),  # mmdet's default: any box
        )
        self.stages = nn.ModuleList(
            BoxStage(extractor, box_head)
            for extractor, box_head in zip(
                stages_of(head.bbox_roi_extractor), stages_of(head.bbox_head), strict=True
            )
        )
        self.mask_stages = nn.ModuleList()
        if head.with_mask:
            self.mask_stages.extend(
                map(MaskStage, stages_of(head.mask_roi_extractor), stages_of(head.mask_head))
            )
        self._score_threshold = float(rcnn.score_thr)
        self._iou_threshold = float(rcnn.nms.iou_threshold)
        self.num_detections = int(rcnn.max_per_img)

    def forward(self, images: Tensor, image_size: Tensor) -> tuple[Tensor, ...]:
        """Detect.

        Args:
            images: normalised and padded, (N, 3, H, W).
            image_size: height and width of the part of each that holds its image, (N, 2), pixels.

        Returns:
            Left, top, right, bottom and score (N, K, 5), classes (N, K), and of a model with masks
            their probabilities (N, K, rows, columns).
        """
        features = self.pyramid(images)
        boxes, objectness = self.proposals(features, image_size)
        of_stages: list[Tensor] = []
        deltas = boxes  # for the type checker: there is at least one stage
        stages = cast(list[BoxStage], list(self.stages))
        for index, stage in enumerate(stages):
            logits, deltas = stage(features, boxes)
            of_stages.append(logits)
            # The last stage moves boxes after the scores are known, for each class by itself.
            if index < len(stages) - 1:
                boxes = stage.refine(boxes, logits, deltas, image_size)
        # mmdet averages the logits of a cascade's stages; the boxes are the last one's.
        logits = sum(of_stages[1:], of_stages[0]) / len(of_stages)
        scores = logits.softmax(dim=2)[:, :, :-1]  # (N, P, C), without the background
        # What pads the proposals must not become a detection, whatever the heads say of it.
        scores = scores.where((objectness > ANY_SCORE)[:, :, None], DROPPED)
        found, labels = detect(
            stages[-1].boxes_of_classes(boxes, deltas, image_size),
            scores,
            score_threshold=self._score_threshold,
            iou_threshold=self._iou_threshold,
            num_detections=self.num_detections,
        )
        if not self.mask_stages:
            return found, labels
        return found, labels, self.masks(features, found, labels)

    def masks(self, features: Sequence[Tensor], found: Tensor, labels: Tensor) -> Tensor:
        """Return the masks (N, K, rows, columns) of detections (N, K, 5) with classes (N, K)."""
        masks = [stage(features, found[:, :, :4], labels) for stage in self.mask_stages]
        return sum(masks[1:], masks[0]) / len(masks)  # of probabilities, unlike those of scores

    @property
    def cuts_boxes_off(self) -> bool:
        """Whether boxes end at their image's border, so that none is larger than the map."""
        coders = [self.proposals.coder, *(stage.coder for stage in self.stages)]
        return all(coder.clip_border for coder in coders)

    def halve(self) -> None:
        """Calculate maps and the heads' features in float16, coordinates and scores in float32."""
        self.pyramid = to_half(self.pyramid)
        self.proposals.maps = to_half(self.proposals.maps)
        # The heads without RoIAlign before them: it reads coordinates.
        for stage in (*self.stages, *self.mask_stages):
            stage.head = to_half(stage.head)
