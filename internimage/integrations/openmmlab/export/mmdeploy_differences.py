"""How far what a converted model finds is from what PyTorch's finds."""

from __future__ import annotations

from typing import Any

import torch
from mmcv.ops import bbox_overlaps
from torch import Tensor

LEAST_SCORE = 0.3  # of the objects that are compared: below it are hundreds that nobody looks at
LEAST_IOU = 0.5  # of boxes that are the same object


def describe_difference(expected: Any, found: Any) -> str:
    """Compare two samples of one image.

    Args:
        expected: PyTorch's, of mmdet or mmseg, on the CPU.
        found: the converted model's.

    Returns:
        A line for people.
    """
    if "pred_sem_seg" in expected:
        same = (expected.pred_sem_seg.data == found.pred_sem_seg.data).float().mean().item()
        return f"{100 * same:.3f} % of the pixels have PyTorch's label"
    ours, theirs = (_objects(sample.pred_instances) for sample in (expected, found))
    pairs = _pairs(ours, theirs)
    text = (
        f"{len(theirs[0])} objects of score >= {LEAST_SCORE}, PyTorch finds {len(ours[0])}, "
        f"{len(pairs)} of them are the same"
    )
    if not pairs:
        return text
    one, other = (torch.tensor(side) for side in zip(*pairs, strict=True))
    boxes = (ours[0][one] - theirs[0][other]).abs().max().item()
    scores = (ours[2][one] - theirs[2][other]).abs().max().item()
    return f"{text}; their boxes differ by up to {boxes:.2g} pixels, scores by {scores:.2g}"


def _objects(instances: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes (n, 4), labels (n,) and scores (n,) above the least score."""
    kept = instances[instances.scores >= LEAST_SCORE]
    return kept.bboxes.float(), kept.labels, kept.scores.float()


def _pairs(
    ours: tuple[Tensor, Tensor, Tensor], theirs: tuple[Tensor, Tensor, Tensor]
) -> list[tuple[int, int]]:
    """The indices of the same objects, the best score first; each is in one pair."""
    if not len(ours[0]) or not len(theirs[0]):
        return []
    overlaps = bbox_overlaps(ours[0], theirs[0])  # (ours, theirs), 0-1
    overlaps[ours[1][:, None] != theirs[1][None]] = 0.0
    pairs = []
    for index in ours[2].argsort(descending=True).tolist():
        best = int(overlaps[index].argmax())
        if overlaps[index, best] >= LEAST_IOU:
            pairs.append((index, best))
            overlaps[:, best] = 0.0
    return pairs
