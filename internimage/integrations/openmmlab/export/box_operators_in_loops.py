"""The detectors' two operators in ONNX without NonMaxSuppression and RoiAlign, as loops.

TensorRT for RTX has neither. Results are the same; elsewhere they are slower.

Shape legend: B groups of boxes that do not see each other, S boxes of a group, N images, R boxes in
all, C channels, H W of a map. Boxes are left, top, right, bottom in pixels of the model's input.

Note [Suppression as a fixed point]
    A box stays when no better box that stays overlaps it. Asked of all boxes at once, again and
    again until nothing changes, that is right for the n best after n turns at the latest, whatever
    was believed before; in practice the chains are short. Each turn is a product of the belief
    with a matrix that says who suppresses whom, in which counts are small whole numbers: exact.

Note [RoIAlign as products]
    Interpolation is the product of a weight of rows and one of columns, at the borders too, and the
    mean over a grid of samples is one over its rows and one over its columns. So each box is two
    products with the map: (rows of cells, H) from the left and (W, columns of cells) from the
    right. The number of samples a cell varies from box to box; what there are fewer of counts as 0.
    Boxes go through in chunks, since all at once would be gigabytes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from internimage.integrations.openmmlab.export.box_operators import (
    DROPPED,
    constant,
    floats,
    ints,
)

CHUNK = 64  # 154 MB of rows at 256 channels and a map 336 wide; 1000 boxes would be 2.4 GB
"""Boxes of each image that go through RoIAlign at once."""

_LEAST_AREA = 1e-30
"""In the place of 0, so that boxes without any area overlap nothing: mmcv's 0 / 0 is no overlap."""


def translations() -> dict[Any, Callable[..., Any]]:
    """Return how ``torch.onnx.export`` writes both operators, for its translation table.

    Sizes must be known. ``roi_align`` takes as many boxes of each image, image after image, none of
    them larger than the map: of a larger one it would miss samples.

    Raises:
        ImportError: onnxscript is not installed.
    """
    from onnxscript import opset18 as op
    from onnxscript.values import Op

    names = itertools.count()  # a name is there once in a whole ONNX file, loops included

    def keep_scores_in_onnx(
        boxes: Any, scores: Any, iou_threshold: float, score_threshold: float
    ) -> Any:
        groups, count = (int(size) for size in scores.shape)
        is_above = op.Greater(scores, floats(op, score_threshold))
        suppresses = op.Cast(
            op.And(_overlap(op, boxes, iou_threshold), _is_before(op, scores, count)), to=_FLOAT
        )  # (B, S, S): the better one, the worse one
        candidates: Any = op.Cast(is_above, to=_FLOAT)
        candidates = op.Unsqueeze(candidates, ints(op, 1))  # (B, 1, S)
        half = constant(op, np.float32(0.5))  # between the whole numbers that all values here are

        # See Note [Suppression as a fixed point]. The first two inputs are ONNX's own for every
        # loop, the number of the turn and whether to go on, and nothing here depends on them.
        body = _Body(f"suppression{next(names)}")
        body.input(_INT64, ())
        body.input(_BOOL, ())
        believed = body.input(_FLOAT, (groups, 1, count))
        suppressors = body("MatMul", believed, suppresses)  # (B, 1, S): how many
        stays = body("Cast", body("Less", suppressors, half), to=_FLOAT)
        kept = body("Mul", stays, candidates)
        change = body("ReduceMax", body("Abs", body("Sub", kept, believed)), keepdims=0)
        graph = body.graph([body("Greater", change, half), kept])

        # By name: of inputs by position PyTorch 2.13 writes the first two twice.
        stays = Op(op, "Loop")(
            M=constant(op, np.int64(count)),  # the longest chain has all boxes in it
            cond=constant(op, np.bool_(True)),
            v_initial=(candidates,),
            body=graph,
        )
        is_kept = op.Greater(op.Squeeze(stays, ints(op, 1)), half)
        return op.Where(is_kept, scores, floats(op, DROPPED))

    def roi_align_in_onnx(
        features: Any,
        boxes: Any,
        images: Any,
        output_size: list[int],
        spatial_scale: float,
        sampling_ratio: int,
        aligned: bool,
    ) -> Any:
        # See Note [RoIAlign as products].
        del images  # they follow from the order
        num_images, channels, height, width = (int(size) for size in features.shape)
        rows, columns = output_size
        count = int(boxes.shape[0]) // num_images
        turns = -(-count // CHUNK)
        # All chunks are of one size, for ONNX stacks what the turns of a loop give. Spread evenly
        # they need the least padding: 1000 boxes are 16 times 63 with 8 more, not 64 with 24.
        chunk = -(-count // turns)
        num_padded = turns * chunk - count

        boxes = op.Mul(boxes, floats(op, spatial_scale))
        if aligned:
            boxes = op.Sub(boxes, floats(op, 0.5))
        boxes = op.Reshape(boxes, ints(op, num_images, count, 4))
        if num_padded:
            padding = constant(op, np.zeros((num_images, num_padded, 4), np.float32))
            boxes = op.Concat(boxes, padding, axis=1)
        boxes = op.Reshape(boxes, ints(op, num_images, turns, chunk, 4))
        boxes = op.Transpose(boxes, perm=[1, 0, 2, 3])  # (turns, N, chunk, 4)
        maps = op.Reshape(
            op.Transpose(features, perm=[0, 2, 1, 3]),
            ints(op, num_images, height, channels * width),
        )  # (N, H, C W)

        body = _Body(f"alignment{next(names)}")
        turn, goes_on = body.input(_INT64, ()), body.input(_BOOL, ())
        of_chunk = body("Gather", boxes, turn, axis=0)  # (N, chunk, 4)
        grid = _Grid(op, body, of_chunk, sampling_ratio, aligned)
        # Rows come first, for all boxes of an image at once: so the map, the largest of all, stands
        # in a product once an image and is not repeated for each box.
        upright = body(
            "Reshape",
            grid.weights(1, rows, height),
            ints(op, num_images, chunk * rows, height),
        )  # (N, chunk rows, H)
        level = body(
            "Reshape",
            grid.weights(0, columns, width),
            ints(op, num_images * chunk, columns, width),
        )  # (N chunk, columns, W)
        of_rows = body(
            "Reshape",
            body("MatMul", upright, maps),
            ints(op, num_images * chunk, rows * channels, width),
        )  # (N chunk, rows C, W)
        of_cells = body("MatMul", of_rows, body("Transpose", level, perm=[0, 2, 1]))
        # ONNX wants the condition among the outputs; as an input handed on it needs a node.
        graph = body.graph([body("Identity", goes_on), of_cells])

        # A Scan would say it in fewer words, but TensorRT's parser refuses this one.
        found = Op(op, "Loop")(
            M=constant(op, np.int64(turns)),
            cond=constant(op, np.bool_(True)),
            v_initial=(),
            body=graph,
        )  # (turns, N chunk, rows C, columns)
        found = op.Reshape(found, ints(op, turns, num_images, chunk, rows, channels, columns))
        found = op.Transpose(found, perm=[1, 0, 2, 4, 3, 5])  # (N, turns, chunk, C, rows, columns)
        found = op.Reshape(found, ints(op, num_images, turns * chunk, channels, rows, columns))
        if num_padded:
            found = op.Slice(found, ints(op, 0), ints(op, count), ints(op, 1))
        return op.Reshape(found, ints(op, num_images * count, channels, rows, columns))

    operators = torch.ops.internimage
    return {
        operators.keep_scores.default: keep_scores_in_onnx,
        operators.roi_align.default: roi_align_in_onnx,
    }


def _overlap(op: Any, boxes: Any, iou_threshold: float) -> Any:
    """Return whether two boxes of a group overlap by more than the threshold, (B, S, S)."""
    first = [op.Gather(boxes, ints(op, side), axis=2) for side in range(4)]  # (B, S, 1)
    second = [op.Transpose(side, perm=[0, 2, 1]) for side in first]  # (B, 1, S)
    nothing = floats(op, 0.0)  # the difference is negative where boxes are apart
    sides = [
        op.Max(
            op.Sub(op.Min(first[axis + 2], second[axis + 2]), op.Max(first[axis], second[axis])),
            nothing,
        )
        for axis in range(2)
    ]
    common = op.Mul(*sides)
    area = op.Mul(op.Sub(first[2], first[0]), op.Sub(first[3], first[1]))
    total = op.Sub(op.Add(area, op.Transpose(area, perm=[0, 2, 1])), common)
    ratio = op.Div(common, op.Max(total, floats(op, _LEAST_AREA)))
    return op.Greater(ratio, floats(op, iou_threshold))


def _is_before(op: Any, scores: Any, count: int) -> Any:
    """Return whether the first of two boxes is better, or as good and earlier, (B, S, S)."""
    first, second = op.Unsqueeze(scores, ints(op, 2)), op.Unsqueeze(scores, ints(op, 1))
    # Without the diagonal: a box does not suppress itself.
    is_earlier = constant(op, np.triu(np.ones((1, count, count), np.bool_), 1))
    return op.Or(op.Greater(first, second), op.And(op.Equal(first, second), is_earlier))


class _Grid:
    """The samples of a chunk of boxes.

    Args:
        op: onnxscript's operators, for what does not change from chunk to chunk.
        body: where all else is written.
        boxes: (N, chunk, 4) in pixels of the map, from the middle of its first.
        sampling_ratio: samples a cell along each axis; 0 takes one a pixel.
        aligned: whether boxes may be smaller than a pixel.
    """

    def __init__(
        self, op: Any, body: _Body, boxes: Any, sampling_ratio: int, aligned: bool
    ) -> None:
        self._op = op
        self._body = body
        self._boxes = boxes
        self._sampling_ratio = sampling_ratio
        self._aligned = aligned

    def weights(self, axis: int, cells: int, length: int) -> Any:
        """Return what each pixel counts for a cell's mean, (N, chunk, cells, length).

        Args:
            axis: 0 along the columns of the map, 1 along its rows.
            cells: of the grid along that axis.
            length: of the map along it.
        """
        op, body = self._op, self._body
        one, axes = floats(op, 1.0), ints(op, 2)
        first = body("Gather", self._boxes, ints(op, axis), axis=2)  # (N, chunk, 1)
        size = body("Sub", body("Gather", self._boxes, ints(op, axis + 2), axis=2), first)
        if not self._aligned:
            size = body("Max", size, one)  # mmcv's, "for backward-compatibility only"
        first, size = body("Unsqueeze", first, axes), body("Unsqueeze", size, axes)  # 4 axes each
        cell = body("Div", size, floats(op, cells))  # (N, chunk, 1, 1)
        # A box as large as the map has so many samples a cell; one more for its rounding.
        most = self._sampling_ratio or -(-length // cells) + 1
        number = floats(op, most)
        if not self._sampling_ratio:
            number = body("Max", body("Ceil", cell), one)
        # mmcv's order: first + index * cell + ((sample + 0.5) * cell) / number
        index = constant(op, np.arange(cells, dtype=np.float32)[:, None])
        sample = constant(op, np.arange(most, dtype=np.float32)[None])
        middle = constant(op, np.arange(most, dtype=np.float32)[None] + np.float32(0.5))
        position = body(
            "Add",
            body("Add", first, body("Mul", index, cell)),
            body("Div", body("Mul", middle, cell), number),
        )  # (N, chunk, cells, samples)
        counts = body("And", self._is_near(position, length), body("Less", sample, number))
        if not self._sampling_ratio:
            # mmcv takes no sample of a box without any size, whatever is near it.
            counts = body("And", counts, body("Greater", cell, floats(op, 0.0)))
        # Beyond the middle of the first and last pixel mmcv takes that pixel alone.
        ends = (constant(op, np.float32(end)) for end in (0, length - 1))
        inside = body("Unsqueeze", body("Clip", position, *ends), ints(op, 4))
        pixel = constant(op, np.arange(length, dtype=np.float32))
        far = body("Abs", body("Sub", inside, pixel))
        # Linear interpolation: 1 on the pixel itself, 0 from the next one on.
        weight = body("Relu", body("Sub", one, far))  # (N, chunk, cells, samples, length)
        counted = body("Unsqueeze", body("Cast", counts, to=_FLOAT), ints(op, 4))
        total = body("ReduceSum", body("Mul", weight, counted), ints(op, 3), keepdims=0)
        return body("Div", total, number)

    def _is_near(self, position: Any, length: int) -> Any:
        """Return which samples are at most a pixel outside; others count as 0."""
        op, body = self._op, self._body
        return body(
            "And",
            body("GreaterOrEqual", position, floats(op, -1.0)),
            body("LessOrEqual", position, floats(op, length)),
        )


class _Body:
    """A graph within a node.

    Values of the graph around it are taken as they are.

    Args:
        name: of the graph, and how the names of its values begin.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._inputs: list[Any] = []
        self._nodes: list[Any] = []

    def input(self, element_type: int, shape: Sequence[int]) -> Any:
        """Return the next input."""
        import onnx_ir as ir

        value = ir.Value(
            name=f"{self._name}_input{len(self._inputs)}",
            shape=ir.Shape(shape),
            type=ir.TensorType(ir.DataType(element_type)),
        )
        self._inputs.append(value)
        return value

    def __call__(self, operator: str, *inputs: Any, **attributes: Any) -> Any:
        """Add a node and return its only output."""
        import onnx_ir as ir

        node = ir.node(operator, inputs, attributes)
        node.outputs[0].name = f"{self._name}_{len(self._nodes)}"
        node.name = f"{self._name}_node{len(self._nodes)}"
        self._nodes.append(node)
        return node.outputs[0]

    def graph(self, outputs: Sequence[Any]) -> Any:
        """Return the finished graph."""
        import onnx_ir as ir

        return ir.Graph(self._inputs, outputs, nodes=self._nodes, name=self._name)


_FLOAT, _INT64, _BOOL = 1, 7, 9
"""ONNX's numbers of types."""
