"""What mmdet does to boxes behind its networks, in tensors of a fixed shape.

Shape legend: N images, S boxes of an image. Boxes are left, top, right, bottom in pixels of the
model's input; ``image_size`` (N, 2) is the height and width of the part of each input that holds
its image, pixels.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder
from torch import Tensor

from internimage.integrations.openmmlab.export.box_operators import DROPPED

MOST_CANDIDATES = 3840
"""TensorRT sorts out no more than so many best values at once."""

WH_RATIO_CLIP = 16 / 1000
"""mmdet's least ratio of a side to that of the box it comes from; the largest is its inverse."""


def decode_boxes(
    coder: DeltaXYWHBBoxCoder, anchors: Tensor, deltas: Tensor, image_size: Tensor
) -> Tensor:
    """Move and stretch boxes as a network says, and cut them off at their image's border.

    Args:
        coder: the deltas' means, deviations and limits.
        anchors: what the deltas start from, (N, S, 4).
        deltas: (N, S, 4).
        image_size: (N, 2).

    Returns:
        (N, S, 4).
    """
    # In mmdet's order of operations (delta2bbox), so that boxes are the same to the last bit.
    shift, log_ratio = (
        deltas * deltas.new_tensor(coder.stds) + deltas.new_tensor(coder.means)
    ).split(2, dim=-1)
    limit = abs(math.log(WH_RATIO_CLIP))
    first, last = anchors.split(2, dim=-1)  # x and y of both corners, (N, S, 2) each
    size = last - first
    centre = (first + last) * 0.5 + size * shift
    half = size * log_ratio.clamp(-limit, limit).exp() * 0.5
    boxes = torch.cat([centre - half, centre + half], dim=-1)
    if not coder.clip_border:
        return boxes
    return torch.minimum(boxes.clamp(min=0), borders(image_size)[:, None])


def borders(image_size: Tensor) -> Tensor:
    """Return each image's largest right, bottom, right and bottom (N, 4), pixels, float32."""
    return image_size.flip(1).repeat(1, 2).float()  # from height and width


def best(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the ``count`` best scores of each image, best first, and where they are.

    Args:
        scores: (N, S), S perhaps less than ``count``.
        count: how many.

    Returns:
        The scores (N, count), :data:`DROPPED` where there were no more, and indices (N, count),
        there 0.
    """
    size = scores.shape[1]
    if not isinstance(size, int):  # S is known only when the model runs: enough there always is
        scores = F.pad(scores, (0, count), value=DROPPED)
    elif size < count:
        scores = F.pad(scores, (0, count - size), value=DROPPED)
    values, indices = scores.topk(count, dim=1)
    # What is padding has an index beyond the boxes that are there: nothing could be picked by it.
    return values, indices.where(values > DROPPED, 0)


def pick(values: Tensor, indices: Tensor) -> Tensor:
    """Return ``values[n, indices[n, k]]`` of (N, S, D) and (N, K) as (N, K, D)."""
    return values.gather(1, indices[:, :, None].expand(-1, -1, values.shape[2]))


def look_up(table: Tensor, indices: Tensor) -> Tensor:
    """Return ``table[indices[n, k]]`` of (T, ...) and (N, K) as (N, K, ...).

    What stands where is looked up rather than divided out of the index: ONNX divides whole numbers
    in floating point, or with a look at signs.
    """
    return table.index_select(0, indices.flatten()).unflatten(0, indices.shape)
