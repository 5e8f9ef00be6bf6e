"""A segmentor on several views of an image: other scales, flipped.

Shape legend: C classes, Ho Wo of the original image in pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from mmengine.structures import PixelData
from mmseg.models.segmentors import SegTTAModel
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor

from internimage.integrations.openmmlab.segmentation.segmentor import find_labels


@MODELS.register_module()
class InternImageSegTTA(SegTTAModel):
    """The mean of the views' probabilities at the original size, and the labels from it.

    mmseg's ``SegTTAModel`` holds the scores of all views until the last is there (5 GB each for 150
    classes on 4096 x 2048 pixels), takes the sigmoid of a single class twice, and returns the
    scores and metadata of the last view, flip included, beside the merged labels. Here one view is
    held beside the sum, and the first view's sample, whose scores are the mean, is returned.
    """

    @torch.no_grad()
    def test_step(self, data: dict[str, Any]) -> list[SegDataSample]:
        """Return one merged sample for every image.

        Args:
            data: ``inputs`` and ``data_samples``, each a list of views of a list of images.
        """
        return self._merge(
            self.module.test_step({key: value[view] for key, value in data.items()})
            for view in range(len(data["inputs"]))
        )

    # mmengine's interface, for whoever has the views' predictions already.
    @torch.no_grad()
    def merge_preds(
        self, data_samples_list: Sequence[Sequence[SegDataSample]]
    ) -> list[SegDataSample]:
        """Return one merged sample for every image.

        Args:
            data_samples_list: for every image the predictions of all its views, which lose their
                scores.
        """
        return self._merge(zip(*data_samples_list, strict=True))

    def _merge(self, views: Iterable[Sequence[SegDataSample]]) -> list[SegDataSample]:
        """Return the first view's samples with the mean of all; one view is held at a time."""
        merged: Sequence[SegDataSample] = ()
        sums: list[Tensor] = []
        num_views = 0
        for samples in views:
            num_views += 1
            if num_views == 1:
                merged, sums = samples, [take_probabilities(sample) for sample in samples]
                continue
            for total, sample in zip(sums, samples, strict=True):
                total += take_probabilities(sample)
        return [
            self._with_mean(sample, total.div_(num_views))
            for sample, total in zip(merged, sums, strict=True)
        ]

    def _with_mean(self, sample: SegDataSample, mean: Tensor) -> SegDataSample:
        """Put the views' mean (C, Ho, Wo) and its labels into the sample of the first."""
        labels = find_labels(mean, self.module.decode_head)
        sample.set_data(
            {"seg_logits": PixelData(data=mean), "pred_sem_seg": PixelData(data=labels)}
        )
        # The segmentor has undone the view's flip: who draws the sample must not do so again.
        sample.set_metainfo({"flip": False, "flip_direction": None})
        return sample


def take_probabilities(sample: SegDataSample) -> Tensor:
    """Return the probability (C, Ho, Wo) of every class, made in place from a sample's scores.

    Scores of several classes become probabilities by a softmax, Mask2Former's sums over queries as
    well: so the released models averaged them. That of a single class is one already.

    Raises:
        ValueError: the sample has no scores.
    """
    if "seg_logits" not in sample:
        raise ValueError(
            "InternImageSegTTA: expected a model whose test_cfg has keep_scores = True, got "
            "predictions without scores"
        )
    scores = sample.seg_logits.data.float()  # sums over views lose digits in half
    del sample.seg_logits  # else the sample would hold what is overwritten below
    if len(scores) == 1:
        return scores
    # torch.softmax would be a second array of all scores: 5 GB for 150 classes on 4096 x 2048.
    scores -= scores.amax(dim=0, keepdim=True)
    scores.exp_()
    scores /= scores.sum(dim=0, keepdim=True)
    return scores
