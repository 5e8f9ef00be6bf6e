"""Two operators of detectors with results of a fixed shape, and how they are written in ONNX.

PyTorch traces them as one node each; run eagerly they are mmcv's.

Shape legend: B groups of boxes that do not see each other, S boxes of a group, R boxes in all, N
images, C channels. Boxes are left, top, right, bottom in pixels of the model's input.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mmcv.ops
import numpy as np
import torch
from torch import Tensor

DROPPED = -1.0
"""The score of a box that is not there; scores of boxes that are lie in 0-1."""


@torch.library.custom_op("internimage::keep_scores", mutates_args=())
def keep_scores(
    boxes: Tensor, scores: Tensor, iou_threshold: float, score_threshold: float
) -> Tensor:
    """Suppress all boxes of a group that overlap a better one of it.

    Args:
        boxes: (B, S, 4).
        scores: (B, S).
        iou_threshold: a box is suppressed whose intersection over union is above it, 0-1.
        score_threshold: boxes are left out whose score is not above it.

    Returns:
        The scores (B, S) of those that stay, :data:`DROPPED` for the others.
    """
    kept = torch.full_like(scores, DROPPED)
    for group in range(len(boxes)):
        # Before mmcv, as mmdet's multiclass_nms does it: mmcv heeds thresholds above 0 alone.
        (candidates,) = torch.where(scores[group] > score_threshold)
        if len(candidates):
            of_group = scores[group, candidates]
            _, chosen = mmcv.ops.nms(boxes[group, candidates], of_group, iou_threshold)
            kept[group, candidates[chosen]] = of_group[chosen]
    return kept


@keep_scores.register_fake
def _(boxes: Tensor, scores: Tensor, iou_threshold: float, score_threshold: float) -> Tensor:
    return torch.empty_like(scores)


@torch.library.custom_op("internimage::roi_align", mutates_args=())
def roi_align(
    features: Tensor,
    boxes: Tensor,
    images: Tensor,
    output_size: list[int],
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """Average a map over the cells of a grid that is laid over each box.

    Args:
        features: (N, C, H, W).
        boxes: (R, 4).
        images: the image of each box (R,), from 0.
        output_size: rows and columns of the grid.
        spatial_scale: the map's size over the input's.
        sampling_ratio: samples a cell along each axis; 0 takes one a pixel of the map.
        aligned: whether a pixel's centre is at half a pixel.

    Returns:
        (R, C, rows, columns).
    """
    rois = torch.cat([images[:, None].to(boxes), boxes], dim=1)  # (R, 5), as mmcv wants them
    size = (output_size[0], output_size[1])
    return mmcv.ops.roi_align(features, rois, size, spatial_scale, sampling_ratio, "avg", aligned)


@roi_align.register_fake
def _(
    features: Tensor,
    boxes: Tensor,
    images: Tensor,
    output_size: list[int],
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    return features.new_empty((boxes.shape[0], features.shape[1], *output_size))


def translations() -> dict[Any, Callable[..., Any]]:
    """Return how ``torch.onnx.export`` writes both operators, for its translation table.

    Raises:
        ImportError: onnxscript is not installed.
    """
    from onnxscript import opset18 as op

    def keep_scores_in_onnx(
        boxes: Any, scores: Any, iou_threshold: float, score_threshold: float
    ) -> Any:
        # Groups are the batch axis and there is one class: TensorRT sorts, and cuts off at 5000,
        # the boxes of all classes together.
        # ONNX has y before x in a box: for overlaps it is the same.
        chosen = op.NonMaxSuppression(
            boxes,
            op.Unsqueeze(scores, ints(op, 1)),  # (B, 1, S)
            ints(op, scores.shape[1]),  # all may stay; without a number none would
            floats(op, iou_threshold),
            floats(op, score_threshold),
        )  # (kept, 3): group, class, box
        # How many stay is known only when the file runs: scattered, the result has a fixed shape.
        where = op.Gather(chosen, ints(op, 0, 2), axis=1)  # (kept, 2): group, box
        nothing = op.Expand(floats(op, DROPPED), op.Shape(scores))
        return op.ScatterND(nothing, where, op.GatherND(scores, where))

    def roi_align_in_onnx(
        features: Any,
        boxes: Any,
        images: Any,
        output_size: list[int],
        spatial_scale: float,
        sampling_ratio: int,
        aligned: bool,
    ) -> Any:
        return op.RoiAlign(
            features,
            boxes,
            images,
            # output_half_pixel does not shift by half a pixel, for all its name.
            coordinate_transformation_mode="half_pixel" if aligned else "output_half_pixel",
            mode="avg",
            output_height=output_size[0],
            output_width=output_size[1],
            sampling_ratio=sampling_ratio,
            spatial_scale=spatial_scale,
        )

    operators = torch.ops.internimage
    return {
        operators.keep_scores.default: keep_scores_in_onnx,
        operators.roi_align.default: roi_align_in_onnx,
    }


def ints(op: Any, *values: int) -> Any:
    """Return a constant (values,), int64."""
    return constant(op, np.array(values, np.int64))


def floats(op: Any, *values: float) -> Any:
    """Return a constant (values,), float32."""
    return constant(op, np.array(values, np.float32))


def constant(op: Any, values: Any) -> Any:
    """Return a constant with the shape and type of NumPy's ``values``."""
    from onnx import numpy_helper

    return op.Constant(value=numpy_helper.from_array(np.asarray(values)))
