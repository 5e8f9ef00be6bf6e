"""What mmdet itself predicts, as an exported detector gives it: what exports are compared with.

Shape legend: N images, K detections of an image.
"""

from __future__ import annotations

from typing import Any

import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor, nn

from internimage.integrations.openmmlab.export.rcnn import ExportableRCNN


class Predictions(nn.Module):
    """A detector's own ``predict``, padded to a fixed number of detections.

    Masks are those of the exportable form at mmdet's boxes: mmdet pastes its own into the image.

    Args:
        model: of mmdet, in evaluation mode.
        form: the same to be exported.
        num_detections: K.
        blue_first: whether the model sees blue, green, red; images come as red, green, blue.
    """

    def __init__(
        self, model: Any, form: nn.Module, *, num_detections: int, blue_first: bool
    ) -> None:
        super().__init__()
        self.model = model
        self.form = form
        self._num_detections = num_detections
        self._blue_first = blue_first

    def forward(self, images: Tensor, image_size: Tensor) -> tuple[Tensor, ...]:
        """Return boxes with scores (N, K, 5), classes (N, K) and perhaps masks (N, K, h, w).

        Args:
            images: normalised and padded, (N, 3, H, W).
            image_size: height and width of the part of each that holds its image, (N, 2), pixels.
        """
        form = self.form
        has_masks = isinstance(form, ExportableRCNN) and len(form.mask_stages) > 0
        # With masks the form's pyramid is asked, which turns the colours round by itself.
        if self._blue_first and not has_masks:
            images = images.flip(1)
        samples = [_sample(images, size) for size in image_size.tolist()]
        if not has_masks:
            # False: boxes stay in pixels of the input.
            results = [one.pred_instances for one in self.model.predict(images, samples, False)]
            return self._padded(results)
        # The steps of mmdet's predict up to its masks, on one set of features for both.
        assert isinstance(form, ExportableRCNN)
        head = self.model.roi_head
        features = form.pyramid(images)
        proposals = self.model.rpn_head.predict(features, samples, rescale=False)
        metas = [sample.metainfo for sample in samples]
        results = head.predict_bbox(features, metas, proposals, head.test_cfg, rescale=False)
        found, labels = self._padded(results)
        return found, labels, form.masks(features, found, labels)

    def _padded(self, results: list[InstanceData]) -> tuple[Tensor, Tensor]:
        found = torch.zeros(len(results), self._num_detections, 5)
        labels = torch.full((len(results), self._num_detections), -1)
        for index, result in enumerate(results):
            count = len(result.scores)
            found[index, :count, :4] = result.bboxes  # already the best first
            found[index, :count, 4] = result.scores
            labels[index, :count] = result.labels
        return found, labels


def _sample(images: Tensor, size: list[int]) -> DetDataSample:
    padded = tuple(images.shape[2:])
    # As if the image had been given at this size: whatever mmdet undoes, it undoes nothing.
    return DetDataSample(
        metainfo={
            "img_shape": tuple(size),
            "ori_shape": tuple(size),
            "pad_shape": padded,
            "batch_input_shape": padded,
            "scale_factor": (1.0, 1.0),
        }
    )
