"""The segmentor of all our configs: mmseg's encoder and decoder, made for large images.

Scores of 150 classes for 4096 x 2048 pixels are 5 GB. mmseg holds them several times over: a padded
copy for each sliding window, one more for their mean, one for a resizing that changes nothing.
Here they are there once.

Shape legend: N batch, C classes, H W of the images that the model gets, in pixels.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.structures import PixelData
from mmseg.models.segmentors import EncoderDecoder
from mmseg.models.utils import resize
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor

from internimage.integrations.openmmlab.convert import convert_on_load
from internimage.integrations.openmmlab.segmentation.sliding import (
    check_sliding,
    mean_over_windows,
)
from internimage.script import nearest_hint

MODES = ("whole", "slide")
WINDOWS = ("crop_size", "stride")
"""Settings of mode slide."""
# Float32 scores of eight are 32 bytes a pixel: the best score and its label, which are kept beside
# them, take 12. Fewer would save little and resize more often.
CLASSES_AT_ONCE = 8
"""Whose scores are resized together where only labels are wanted."""
_FLIPPED_AXES = {"horizontal": (-1,), "vertical": (-2,), "diagonal": (-2, -1)}


@MODELS.register_module()
class InternImageSegmentor(EncoderDecoder):
    """mmseg's ``EncoderDecoder`` with its fields, and three things of its own.

    Weights of released segmentors, with their old names, are converted when they are loaded,
    whoever loads them. Sliding windows (``test_cfg=dict(mode="slide", crop_size=(h, w),
    stride=(h, w))``) are held one at a time, and the images' metadata stay the caller's. What
    already has the size of the original image is not resized. With ``keep_scores=False`` in
    ``test_cfg`` (default True) a prediction has labels alone, and the scores of all classes are
    there at the size of the model's input only; enlarged to a photo of 12 megapixels, those of 150
    classes are 7 GB.

    Args:
        **kwargs: mmseg's fields. ``test_cfg`` left out means whole images.

    Raises:
        ValueError: ``test_cfg`` has another mode, windows that leave pixels out, or a setting that
            there is not.
    """

    def __init__(self, **kwargs: Any) -> None:
        test_cfg = kwargs.get("test_cfg")
        if check_test_cfg(test_cfg) != "slide":
            for name in WINDOWS:
                if (test_cfg or {}).get(name) is not None:
                    warnings.warn(
                        f"InternImageSegmentor: test_cfg.{name} has no effect without mode = slide",
                        stacklevel=2,
                    )
        super().__init__(**kwargs)
        self.register_load_state_dict_pre_hook(convert_on_load)

    def loss(self, inputs: Tensor, data_samples: list[SegDataSample]) -> dict[str, Tensor]:
        """Return the losses and accuracies of images (N, 3, H, W) with their true labels.

        Args:
            inputs: the images.
            data_samples: of each image, with ``gt_sem_seg``.

        Raises:
            ValueError: there is one image, and a batch norm of the head has one value of it.
        """
        try:
            return super().loss(inputs, data_samples)
        except ValueError as error:
            # PyTorch's words. UPerHead pools to one pixel, so that one image is one value.
            if "more than 1 value per channel" not in str(error):
                raise
            raise ValueError(
                "InternImageSegmentor: expected 2 images or more a step (train_dataloader with "
                "batch_size = 2, or several GPUs with SyncBN): UPerHead's batch norm learns from "
                f"one value an image; got {len(inputs)}"
            ) from error

    def encode_decode(self, inputs: Tensor, batch_img_metas: Sequence[dict[str, Any]]) -> Tensor:
        """Return scores (N, C, H, W) for images (N, 3, H, W), or for one window of them.

        Args:
            inputs: the images.
            batch_img_metas: of each image; its sizes in them are replaced by those of ``inputs``.
        """
        # mmseg writes a window's size into the first image's metadata, and leaves pad_shape at the
        # whole image's (1.4): Mask2Former would enlarge a window's scores to that.
        size = inputs.shape[2:]
        metas = [dict(meta, img_shape=size, pad_shape=size) for meta in batch_img_metas]
        return self.decode_head.predict(self.extract_feat(inputs), metas, self.test_cfg)

    def slide_inference(self, inputs: Tensor, batch_img_metas: Sequence[dict[str, Any]]) -> Tensor:
        """Return scores (N, C, H, W): where windows overlap, their mean.

        Args:
            inputs: images (N, 3, H, W); one that is smaller than a window is one window.
            batch_img_metas: of each image.

        Raises:
            ValueError: the windows leave pixels out.
        """
        return mean_over_windows(
            lambda window: self.encode_decode(window, batch_img_metas),
            inputs,
            self.out_channels,
            *check_sliding(self.test_cfg),
        )

    def inference(self, inputs: Tensor, batch_img_metas: Sequence[dict[str, Any]]) -> Tensor:
        """Return scores (N, C, H, W) of whole images, by the mode of ``test_cfg``.

        Args:
            inputs: images (N, 3, H, W).
            batch_img_metas: of each image.

        Raises:
            ValueError: ``test_cfg``, which can be changed after the model was built, is wrong.
        """
        if check_test_cfg(self.test_cfg) == "slide":
            return self.slide_inference(inputs, batch_img_metas)
        return self.whole_inference(inputs, batch_img_metas)

    def postprocess_result(
        self, seg_logits: Tensor, data_samples: Sequence[SegDataSample] | None = None
    ) -> list[SegDataSample]:
        """Return each image's scores and labels at its original size.

        Args:
            seg_logits: scores (N, C, H, W).
            data_samples: of the images, whose metadata say what padding, flip and resizing to
                undo; None leaves all as it is.

        Returns:
            The samples with ``seg_logits`` (C, Ho, Wo), for one class its probability, unless
            ``test_cfg`` has ``keep_scores=False``, and ``pred_sem_seg`` (1, Ho, Wo), int64.

        Raises:
            ValueError: a flip's direction is unknown; or scores that are not kept, and so can be
                looked at by nobody else, are not finite.
        """
        samples = [SegDataSample() for _ in seg_logits] if data_samples is None else data_samples
        keep_scores = (self.test_cfg or {}).get("keep_scores", True)
        for scores, sample in zip(seg_logits, samples, strict=True):
            scores = undo_padding_and_flip(scores, sample.metainfo)
            size = sample.metainfo.get("ori_shape", scores.shape[1:])[:2]
            if keep_scores:
                scores = resize_scores(scores, size, align_corners=self.align_corners)
                # As mmseg: logits of several classes, but of a single one its probability.
                scores = scores.sigmoid() if len(scores) == 1 else scores
                sample.seg_logits = PixelData(data=scores)
                labels = find_labels(scores, self.decode_head)
            else:
                _check_finite(scores, sample)
                labels = self._find_labels_at(scores, size)
            sample.pred_sem_seg = PixelData(data=labels)
        return list(samples)

    def _find_labels_at(self, scores: Tensor, size: Sequence[int]) -> Tensor:
        """Return the labels (1, Ho, Wo) of scores (C, H, W) at another size.

        A few classes are resized at a time, and the best of those so far is kept.
        """
        if len(scores) == 1:
            scores = resize_scores(scores, size, align_corners=self.align_corners)
            return find_labels(scores.sigmoid(), self.decode_head)
        best, labels = None, None  # (1, Ho, Wo) each
        for first in range(0, len(scores), CLASSES_AT_ONCE):
            part = scores[first : first + CLASSES_AT_ONCE]
            part = resize_scores(part, size, align_corners=self.align_corners)
            value, label = part.max(dim=0, keepdim=True)  # (1, Ho, Wo); label within the part
            if best is None or labels is None:
                best, labels = value, label
                continue
            is_better = value > best  # the first of equal ones, as argmax has it
            best = torch.where(is_better, value, best)
            labels = torch.where(is_better, label + first, labels)
        assert labels is not None  # there is a class
        return labels


def check_test_cfg(test_cfg: Mapping[str, Any] | None) -> str:
    """Return the mode of a segmentor's ``test_cfg``.

    Raises:
        ValueError: it is none of :data:`MODES`, its windows leave pixels out, ``keep_scores`` is
            neither True nor False, or there is another setting.
    """
    known = ("mode", *WINDOWS, "keep_scores")
    for name in test_cfg or {}:
        if name not in known:
            raise ValueError(
                f"InternImageSegmentor: expected test_cfg with {', '.join(known)}, got "
                f"{name}{nearest_hint(name, known)}"
            )
    mode = (test_cfg or {}).get("mode", "whole")
    if mode not in MODES:
        raise ValueError(
            f"InternImageSegmentor: expected test_cfg with mode = {' or '.join(MODES)}, got "
            f"{mode!r}"
        )
    keep_scores = (test_cfg or {}).get("keep_scores", True)
    if not isinstance(keep_scores, bool):
        raise ValueError(
            "InternImageSegmentor: expected test_cfg with keep_scores = True or False, got "
            f"{keep_scores!r}"
        )
    if test_cfg is not None and mode == "slide":
        check_sliding(test_cfg)
    return mode


def _check_finite(scores: Tensor, sample: SegDataSample) -> None:
    if not torch.isfinite(scores.sum(dtype=torch.float32)):  # half's ends at 65504
        image = sample.metainfo.get("img_path") or "an image"
        raise ValueError(
            f"InternImageSegmentor: expected finite scores for {image}, got NaN or infinity: the "
            "weights or the image hold some, or numbers of 16 bits were too small"
        )


def undo_padding_and_flip(scores: Tensor, meta: Mapping[str, Any]) -> Tensor:
    """Return scores (C, h, w) of an image as it was resized; a view of those given where possible.

    Args:
        scores: (C, H, W) of the padded and flipped image.
        meta: the image's metadata: ``img_padding_size`` or ``padding_size`` (left, right, top,
            bottom), ``flip`` and ``flip_direction``. What is missing was not done.

    Raises:
        ValueError: the direction of the flip is unknown.
    """
    height, width = scores.shape[1:]
    # mmseg's data preprocessor calls it img_padding_size in a test, padding_size in a training.
    left, right, top, bottom = meta.get("img_padding_size", meta.get("padding_size", (0, 0, 0, 0)))
    # Padding first, as it came last: after the flip, at the right and the bottom of the flipped.
    scores = scores[:, top : height - bottom, left : width - right]
    if not meta.get("flip"):
        return scores
    direction = meta.get("flip_direction")
    if direction not in _FLIPPED_AXES:
        raise ValueError(
            f"InternImageSegmentor: expected flip_direction = {', '.join(_FLIPPED_AXES)}, got "
            f"{direction!r}"
        )
    return scores.flip(_FLIPPED_AXES[direction])


def resize_scores(scores: Tensor, size: Sequence[int], *, align_corners: bool) -> Tensor:
    """Return scores (C, Ho, Wo) for (C, H, W); those given if they have that size already.

    Args:
        scores: of an image.
        size: Ho, Wo.
        align_corners: whether the corners' centres stay where they are.
    """
    if tuple(scores.shape[1:]) == tuple(size):
        return scores
    return resize(
        scores[None], size=tuple(size), mode="bilinear", align_corners=align_corners, warning=False
    )[0]


def find_labels(scores: Tensor, head: Any) -> Tensor:
    """Return the label (1, H, W) of every pixel, int64.

    Args:
        scores: (C, H, W), of a single class its probability.
        head: whose ``threshold`` says above which probability a pixel is of the single class.
    """
    if len(scores) > 1:
        return scores.argmax(dim=0, keepdim=True)
    return (scores > head.threshold).long()
