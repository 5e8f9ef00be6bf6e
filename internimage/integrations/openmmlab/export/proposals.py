"""A region proposal network and what mmdet does behind it, in tensors of a fixed shape.

Shape legend: N images, A anchors a cell of a map, L levels of the pyramid, S boxes that each level
passes on, P proposals of an image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmdet.models.dense_heads import RPNHead
from torch import Tensor, nn

from internimage.integrations.openmmlab.export.box_operators import DROPPED, keep_scores
from internimage.integrations.openmmlab.export.boxes import (
    best,
    decode_boxes,
    look_up,
    pick,
)

ANY_SCORE = DROPPED / 2
"""A threshold between the score of a box that is not there and all others."""


class LevelMaps(nn.Module):
    """The network itself.

    Args:
        head: mmdet's.
    """

    def __init__(self, head: RPNHead) -> None:
        super().__init__()
        self.head = head

    def forward(self, *features: Tensor) -> tuple[Tensor, ...]:
        """Return the levels' scores as logits (N, A, h, w), then their deltas (N, 4 * A, h, w)."""
        # Apart from what follows, so that it alone can be made half.
        logits, deltas = self.head(features)
        return (*logits, *deltas)


class Proposals(nn.Module):
    """Proposals as mmdet's ``RPNHead.predict`` finds them.

    Non-maximum suppression looks at each level alone, without mmdet's shift of the boxes by level,
    which rounds them: results differ only where an overlap is within that rounding of the
    threshold.

    Args:
        head: mmdet's.
        num_before: boxes that each level passes on, S.
        num_after: proposals of an image, P.
        iou_threshold: overlap above which the worse of two boxes is suppressed, 0-1.
        min_size: sides of a box are longer than this, pixels; negative for any box.
    """

    def __init__(
        self,
        head: RPNHead,
        *,
        num_before: int,
        num_after: int,
        iou_threshold: float,
        min_size: float,
    ) -> None:
        super().__init__()
        self.maps: nn.Module = LevelMaps(head)
        self.coder = head.bbox_coder
        self._strides: list[tuple[int, int]] = head.prior_generator.strides  # width, height
        self._num_before = num_before
        self._num_after = num_after
        self._iou_threshold = iou_threshold
        self._min_size = min_size
        # Those of the map's first cell; the others are shifted, to maps of any size.
        for level, anchors in enumerate(head.prior_generator.base_anchors):
            self.register_buffer(f"anchors{level}", anchors.float().clone(), persistent=False)

    def forward(self, features: Sequence[Tensor], image_size: Tensor) -> tuple[Tensor, Tensor]:
        """Return boxes (N, P, 4), best first, and their scores (N, P), negative for padding.

        Args:
            features: the pyramid's maps, each (N, C, h, w).
            image_size: height and width of each image, (N, 2), pixels.
        """
        maps = self.maps(*features)
        num_levels = len(features)
        levels = [
            self._best_of_level(level, maps[level], maps[num_levels + level], image_size)
            for level in range(num_levels)
        ]
        # A small map has fewer anchors than S: best() pads, so that levels can be stacked.
        boxes = torch.stack([level[0] for level in levels], dim=1)  # (N, L, S, 4)
        scores = torch.stack([level[1] for level in levels], dim=1)  # (N, L, S)
        # One group a level of an image.
        kept = keep_scores(
            boxes.flatten(0, 1), scores.flatten(0, 1), self._iou_threshold, ANY_SCORE
        )
        kept, indices = best(kept.view_as(scores).flatten(1), self._num_after)
        boxes = pick(boxes.flatten(1, 2), indices)
        # Padding becomes boxes of 0, which the heads see as any others and rcnn.py drops.
        return boxes * (kept > ANY_SCORE)[:, :, None], kept

    def _best_of_level(
        self, level: int, logits: Tensor, deltas: Tensor, image_size: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return a level's best boxes (N, S, 4) and their scores (N, S)."""
        num_images, _, height, width = logits.shape
        # (N, A, h, w) -> (N, h w A): the order of the anchors, which that of equals follows.
        scores = logits.permute(0, 2, 3, 1).reshape(num_images, -1).sigmoid()
        scores, indices = best(scores, self._num_before)
        deltas = deltas.permute(0, 2, 3, 1).reshape(num_images, -1, 4)  # (N, h w A, 4)
        anchors = look_up(self._anchors(level, height, width), indices)
        boxes = decode_boxes(self.coder, anchors, pick(deltas, indices), image_size)
        # Behind the choice of the best, as in mmdet: what is too small is not made up for.
        if self._min_size >= 0:
            is_long = boxes[:, :, 2:] - boxes[:, :, :2] > self._min_size
            scores = scores.where(is_long[:, :, 0] & is_long[:, :, 1], DROPPED)
        return boxes, scores

    def _anchors(self, level: int, height: int, width: int) -> Tensor:
        """Return the anchors (height * width * A, 4) of a level's map."""
        shapes = self.get_buffer(f"anchors{level}")
        stride_x, stride_y = self._strides[level]
        x = torch.arange(width, device=shapes.device)[None, :] * stride_x
        y = torch.arange(height, device=shapes.device)[:, None] * stride_y
        shift = torch.stack([x.expand(height, -1), y.expand(-1, width)], dim=-1)  # (h, w, 2)
        # (A, 4) + (h, w, 1, 4) -> (h w A, 4)
        return (shapes + shift.repeat(1, 1, 2)[:, :, None]).flatten(0, 2)
