"""A segmentor of mmseg taken apart, so that what is traced is the same function without its traps.

Shape legend: N batch, C classes, H W of the model's input in pixels, h w of the head's maps.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from mmseg.models.decode_heads import Mask2FormerHead
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.segmentors import EncoderDecoder
from mmseg.models.utils import resize
from torch import Tensor, nn

from internimage.answers import MAX_INDEXED
from internimage.export import ExportOptions
from internimage.integrations.openmmlab.export.mask2former import replace_mask2former
from internimage.integrations.openmmlab.export.pooling import replace_pooling
from internimage.integrations.openmmlab.segmentation.mask2former_head import (
    InternImageMask2FormerHead,
)


class Scores(nn.Module):
    """What mmseg computes of a whole image or of one window, as a function of tensors alone.

    Args:
        segmentor: in evaluation mode.
        blue_first: whether the model takes blue-green-red.
    """

    def __init__(self, segmentor: Any, *, blue_first: bool = False) -> None:
        super().__init__()
        self.segmentor = segmentor
        self.blue_first = blue_first

    def forward(self, images: Tensor) -> Tensor:
        """Return scores (N, C, H, W), float32, of images (N, 3, H, W), red-green-blue."""
        size = images.shape[2:]
        images = images.flip(1) if self.blue_first else images
        # One for all images: mmseg's heads look at the first alone, for the size to enlarge to.
        metas = [dict(img_shape=size, pad_shape=size, ori_shape=size)]
        return self.segmentor.encode_decode(images, metas).float()


class TracedScores(nn.Module):
    """:class:`Scores` in two parts, each of which may be half inside.

    Args:
        features: from images (N, 3, H, W) to the maps of the stages.
        head: from the maps to scores (N, C, h, w).
        align_corners: of the resizing to the images' size, which is in float32.
        blue_first: whether the model takes blue-green-red.
    """

    def __init__(
        self, features: nn.Module, head: nn.Module, *, align_corners: bool, blue_first: bool
    ) -> None:
        super().__init__()
        self.features = features
        self.head = head
        self.align_corners = align_corners
        self.blue_first = blue_first

    def forward(self, images: Tensor) -> Tensor:
        """Return scores (N, C, H, W), float32, of images (N, 3, H, W), red-green-blue."""
        size = images.shape[2:]
        maps = self.features(images.flip(1) if self.blue_first else images)
        # The function that mmseg's heads enlarge by. Its warning takes sizes as plain integers,
        # which would fix those that are open.
        return resize(
            self.head(maps).float(),
            size=size,
            mode="bilinear",
            align_corners=self.align_corners,
            warning=False,
        )


class ScoreMaps(nn.Module):
    """Mask2Former's scores at the masks' size, in float32.

    A mask decides by a threshold where the next layer looks: rounded to 16 bits some would decide
    otherwise, and with them all that follows.

    Args:
        head: has them.
    """

    def __init__(self, head: InternImageMask2FormerHead) -> None:
        super().__init__()
        self.decode_head = head

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return scores (N, C, h, w) of the maps of the stages."""
        return self.decode_head.score_maps(maps)


class Features(nn.Module):
    """A segmentor's backbone and neck.

    Args:
        segmentor: has them.
    """

    def __init__(self, segmentor: Any) -> None:
        super().__init__()
        self.backbone = segmentor.backbone
        self.neck = segmentor.neck if segmentor.with_neck else nn.Identity()

    def forward(self, images: Tensor) -> Sequence[Tensor]:
        """Return the maps of the stages of images (N, 3, H, W)."""
        return self.neck(self.backbone(images))


class Labels(nn.Module):
    """The best class of every pixel.

    Args:
        scores: from images to scores (N, C, H, W).
        threshold: of a single class, the probability above which a pixel is of it.
    """

    def __init__(self, scores: nn.Module, *, threshold: float) -> None:
        super().__init__()
        self.scores = scores
        self.threshold = threshold

    def forward(self, images: Tensor) -> Tensor:
        """Return labels (N, H, W) of images (N, 3, H, W): uint8, int32 of more than 256 classes."""
        scores = self.scores(images)
        # Small types, since labels of a large image are copied to whoever asks.
        if scores.shape[1] == 1:
            return (scores[:, 0].sigmoid() > self.threshold).to(torch.uint8)
        dtype = torch.uint8 if scores.shape[1] <= MAX_INDEXED else torch.int32
        return scores.argmax(dim=1).to(dtype)


def traceable_scores(segmentor: Any, options: ExportOptions, *, blue_first: bool) -> nn.Module:
    """Return a module of the same scores that torch.export can follow at any size.

    Args:
        segmentor: in evaluation mode; left as it is.
        options: its precision is that of the backbone and the head; resizing stays in float32.
        blue_first: whether the model takes blue-green-red.
    """
    segmentor = copy.deepcopy(segmentor)
    segmentor.auxiliary_head = None  # for training alone
    replace_pooling(segmentor)
    head = segmentor.decode_head
    if isinstance(head, Mask2FormerHead):
        replace_mask2former(segmentor)
    if isinstance(head, InternImageMask2FormerHead):
        # Its head stays whole and in float32, see ScoreMaps.
        return TracedScores(
            _in_precision(Features(segmentor), options),
            ScoreMaps(head),
            align_corners=segmentor.align_corners,
            blue_first=blue_first,
        )
    if isinstance(head, Mask2FormerHead):
        # mmseg's own: in float32 as well, for the same reason; it has no scores without resizing.
        segmentor.backbone = _in_precision(segmentor.backbone, options)
        if segmentor.with_neck:
            segmentor.neck = _in_precision(segmentor.neck, options)
        return Scores(segmentor, blue_first=blue_first)
    if not _has_two_parts(segmentor):
        # Somebody's own head or segmentor: as one piece, resizing in half included.
        return _in_precision(Scores(segmentor, blue_first=blue_first), options)
    return TracedScores(
        _in_precision(Features(segmentor), options),
        _in_precision(head, options),
        align_corners=segmentor.align_corners,
        blue_first=blue_first,
    )


def _has_two_parts(segmentor: Any) -> bool:
    """Whether mmseg does no more than resize what the head's ``forward`` returns."""
    head = segmentor.decode_head
    return (
        isinstance(segmentor, EncoderDecoder)
        and isinstance(head, BaseDecodeHead)
        and type(head).predict is BaseDecodeHead.predict
        and type(head).predict_by_feat is BaseDecodeHead.predict_by_feat
    )


def _in_precision(module: nn.Module, options: ExportOptions) -> nn.Module:
    if options.precision == "fp32":
        return module
    from internimage.export.half import to_half

    return to_half(module)  # float32 comes in and goes out
