"""Mask2Former (arXiv 2112.01527) with the scores of the released segmentors, on top of mmseg's.

Shape legend: N batch, Q queries, C classes, h w of the masks (a quarter of the image's sides).
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Sequence
from typing import Any

from mmseg.models.decode_heads import Mask2FormerHead
from mmseg.models.utils import resize
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor

IGNORED = frozenset({"in_index", "strides"})
"""Fields that configs of Mask2Former have and no Mask2Former looks at."""

_FIELDS = frozenset(
    name
    for base in Mask2FormerHead.__mro__[:2]  # without mmdet the second is mmengine's BaseModule
    for name in inspect.signature(base).parameters
    if name not in ("self", "kwargs")
)
"""Fields that mmseg's head and mmdet's below it take."""


@MODELS.register_module()
class InternImageMask2FormerHead(Mask2FormerHead):
    """mmseg's Mask2Former head, which adds up classes before it resizes.

    The released models take the probability of every pixel to be in a query's mask, sum over the
    queries of each class, and enlarge that; mmseg enlarges the masks' logits first. The sums
    differ, and C maps at the masks' size take less room than Q at the image's.

    Args:
        num_classes: C >= 2, without the one that stands for no object. What is no object has no
            label in a segmentation, so a background is a class.
        **kwargs: the other fields of mmseg's ``Mask2FormerHead``. ``class_weight`` of ``loss_cls``
            has C + 1 numbers. ``strides`` and ``in_index``, which other configs give, have no
            effect: the head takes all maps, and its pixel decoder has strides of its own.

    Raises:
        ImportError: mmdet is not installed.
        TypeError: a field is unknown; mmdet's head would pass over it.
        ValueError: there is one class, or ``class_weight`` has another length.
    """

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        if num_classes < 2:
            raise ValueError(
                "InternImageMask2FormerHead: expected num_classes >= 2, the background among them, "
                f"got {num_classes}"
            )
        without_effect = set(kwargs) - _FIELDS
        if unknown := without_effect - IGNORED:
            raise TypeError(
                "InternImageMask2FormerHead: expected the fields of mmseg's Mask2FormerHead, got "
                f"{', '.join(sorted(unknown))}"
            )
        if without_effect:
            warnings.warn(
                f"InternImageMask2FormerHead: {', '.join(sorted(without_effect))} has no effect: "
                "the head takes all maps, and strides are the pixel decoder's",
                stacklevel=2,
            )
        # mmseg makes its own cls_embed of num_classes: weights of another number would be an error
        # of shapes in the first loss.
        class_weight = kwargs.get("loss_cls", {}).get("class_weight")
        if class_weight is not None and len(class_weight) != num_classes + 1:
            raise ValueError(
                "InternImageMask2FormerHead: expected loss_cls with class_weight of num_classes + "
                f"1 = {num_classes + 1} numbers, the last for no object, got {len(class_weight)}"
            )
        super().__init__(num_classes=num_classes, **kwargs)

    def forward(
        self, x: Sequence[Tensor], batch_data_samples: Sequence[SegDataSample] | None = None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return of every decoder layer class logits (N, Q, C + 1) and mask logits (N, Q, h, w).

        Args:
            x: the backbone's stage maps.
            batch_data_samples: not looked at.
        """
        return super().forward(x, batch_data_samples)

    def score_maps(self, x: Sequence[Tensor]) -> Tensor:
        """Return scores (N, C, h, w) at the masks' size, each at least 0.

        Args:
            x: the backbone's stage maps.
        """
        class_logits, mask_logits = self(x)
        # Of the last decoder layer. Void has no part: a query that is nothing adds little anywhere.
        classes = class_logits[-1].softmax(dim=-1)[..., :-1]  # (N, Q, C)
        masks = mask_logits[-1].sigmoid()  # (N, Q, h, w)
        return (classes.mT @ masks.flatten(2)).unflatten(2, masks.shape[2:])  # (N, C, h, w)

    def predict(
        self, x: Sequence[Tensor], batch_img_metas: Sequence[dict[str, Any]], test_cfg: Any
    ) -> Tensor:
        """Return scores (N, C, H, W) at the images' padded size, each at least 0.

        Args:
            x: the backbone's stage maps.
            batch_img_metas: of each image, with ``pad_shape`` or ``img_shape``.
            test_cfg: of the segmentor; has no part in it.
        """
        meta = batch_img_metas[0]  # a batch has one padded size
        return resize(
            self.score_maps(x),
            size=tuple(meta.get("pad_shape", meta["img_shape"])[:2]),
            mode="bilinear",
            align_corners=self.align_corners,
            warning=False,
        )
