"""DCNv3 for ``torch.onnx.export(..., dynamo=False)``, the exporter by TorchScript.

Whoever has the choice takes ``dynamo=True`` and :mod:`ops_dcnv3.onnx`: its graphs of whole models
are a third of the size. This is for programs such as mmdeploy, which are built upon the exporter
before it. Both write the same two forms, explained there: ``"grid_sample"``, standard nodes only,
which need opset 16, and ``"node"``, one ``dcnv3::DCNv3`` or ``dcnv3::DCNv3Packed`` for a plugin.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch

from .onnx import _FAR, DOMAIN, Form, _undeformed, node_attributes
from .reference import Geometry

LEAST_OPSET = 16
"""The first with GridSample."""

_NODES = {"ops_dcnv3::dcnv3": "DCNv3", "ops_dcnv3::dcnv3_packed": "DCNv3Packed"}
# The arguments behind the tensors, as the exporter calls their types: the geometry, and softmax.
_KINDS: tuple[Literal["i", "f", "b"], ...] = (*("i",) * 9, "f", "b", "b")
_SUFFIXES = {int: "i", float: "f", str: "s"}  # of attributes, by which the exporter knows types
_ONNX = torch._C._onnx.TensorProtoDataType


def register_torchscript_symbolics(form: Form, opset: int) -> None:
    """Teach the exporter both operators of this package; what it was taught before is replaced.

    Args:
        form: What an operator becomes.
        opset: The lowest version of ONNX's operators that this is for.

    Raises:
        ValueError: ``form`` is unknown, or needs a newer ``opset``.
    """
    if form not in get_args(Form):
        raise ValueError(
            f"register_torchscript_symbolics: expected form in {{{', '.join(get_args(Form))}}}, "
            f"got {form!r}"
        )
    if form == "grid_sample" and opset < LEAST_OPSET:
        raise ValueError(
            f"register_torchscript_symbolics: expected opset >= {LEAST_OPSET}, the first with "
            f"GridSample, got {opset}"
        )
    from torch.onnx._internal.torchscript_exporter.utils import register_custom_op_symbolic

    for operator, node in _NODES.items():
        function = _to_node if form == "node" else _to_grid_sample
        register_custom_op_symbolic(operator, functools.partial(function, node), opset)


def _to_node(node: str, graph: Any, *arguments: Any) -> Any:
    """Write one node of the plugin's domain."""
    tensors, geometry, softmax = _split(arguments)
    attributes = {
        f"{name}_{_SUFFIXES[type(value)]}": value
        for name, value in node_attributes(geometry, softmax).items()
    }
    return _typed_as(tensors[0], graph.op(f"{DOMAIN}::{node}", *tensors, **attributes))


def _to_grid_sample(node: str, graph: Any, *arguments: Any) -> Any:
    """Write standard nodes; see Note [GridSample form] in :mod:`ops_dcnv3.onnx`."""
    tensors, g, softmax = _split(arguments)
    input, control = tensors[0], tensors[1]
    channels, num_weights = _sizes(input)[3], g.points_per_pixel()
    if channels is None:
        raise ValueError(f"{node}: expected a known number of channels, got {input.type()}")
    offset = _pixels_last(graph, control)  # (N, features, 1, L)
    if len(tensors) == 3:
        mask = _pixels_last(graph, tensors[2])
    else:
        ends = [_ints(graph, number * num_weights) for number in (0, 2, 3)]
        mask = graph.op("Slice", offset, ends[1], ends[2], _ints(graph, 1))
        offset = graph.op("Slice", offset, ends[0], ends[1], _ints(graph, 1))

    value = graph.op("Transpose", _float32(graph, input), perm_i=[0, 3, 1, 2])
    value = _reshape(graph, value, -1, channels // g.groups, 0, 0)  # (N*G, D, H, W)
    scale, base = _base_grid(graph, input, control, g)
    offset = _reshape(graph, offset, -1, g.num_points, 2, 0)
    offset = graph.op("Transpose", offset, perm_i=[0, 1, 3, 2])  # (N*G, P, L, 2)
    grid = graph.op("Add", graph.op("Mul", offset, scale), base)
    grid = graph.op("Clip", grid, _floats(graph, -_FAR), _floats(graph, _FAR))
    sampled = graph.op(
        "GridSample", value, grid, mode_s="bilinear", padding_mode_s="zeros", align_corners_i=0
    )  # (N*G, D, P, L)
    weight = _reshape(graph, mask, -1, 1, g.num_points, 0)
    if softmax:
        weight = graph.op("Softmax", weight, axis_i=2)
    output = graph.op("Mul", sampled, weight)
    output = graph.op("ReduceSum", output, _ints(graph, 2), keepdims_i=0)  # (N*G, D, L)
    output = _reshape(graph, output, -1, channels, 0)
    output = graph.op("Transpose", output, perm_i=[0, 2, 1])
    output = graph.op("Reshape", output, _output_shape(graph, control, channels))
    if _dtype(input) == "Half":
        output = graph.op("Cast", output, to_i=_ONNX.FLOAT16)
    return _typed_as(input, output)


def _split(arguments: Sequence[Any]) -> tuple[Sequence[Any], Geometry, bool]:
    """Part an operator's arguments into tensors, geometry and ``softmax``."""
    from torch.onnx._internal.torchscript_exporter.symbolic_helper import _parse_arg

    tensors, static = arguments[: -len(_KINDS)], arguments[-len(_KINDS) :]
    numbers: list[Any] = [
        _parse_arg(value, kind) for value, kind in zip(static, _KINDS, strict=True)
    ]
    return tensors, Geometry(*numbers[:-1]), numbers[-1]


def _pixels_last(graph: Any, tensor: Any) -> Any:
    """(N, Ho, Wo, features) -> (N, features, 1, L), float32."""
    features = _sizes(tensor)[3]
    if features is None:
        raise ValueError(f"expected a known number of offsets and weights, got {tensor.type()}")
    flat = _reshape(graph, _float32(graph, tensor), 0, -1, features, 1)
    return graph.op("Transpose", flat, perm_i=[0, 2, 3, 1])


def _base_grid(graph: Any, input: Any, control: Any, g: Geometry) -> tuple[Any, Any]:
    """What multiplies an offset (2), and the grid without offsets (1, P, L, 2)."""
    points = _undeformed(g)[None, :, None, None, :]  # (1, P, 1, 1, 2)
    steps = np.array([g.stride_w, g.stride_h]) * 2.0
    width, height = _sizes(input)[2], _sizes(input)[1]
    out_w, out_h = _sizes(control)[2], _sizes(control)[1]
    if width and height and out_w and out_h:
        pixels = np.stack(np.meshgrid(np.arange(out_w), np.arange(out_h)), axis=-1)
        size = np.array([width, height])
        base = ((pixels * steps)[None, None] + points) / size - 1
        base = base.reshape(1, -1, out_h * out_w, 2)
        return _floats(graph, 2 * g.offset_scale / size), _floats(graph, base)
    column = graph.op("Mul", _positions(graph, control, 2), _floats(graph, steps * [1, 0]))
    row = graph.op("Mul", _positions(graph, control, 1), _floats(graph, steps * [0, 1]))
    row = graph.op("Unsqueeze", row, _ints(graph, 1))  # (Ho, 1, 2)
    size = graph.op("Gather", graph.op("Shape", input), _ints(graph, 2, 1), axis_i=0)
    size = graph.op("Cast", size, to_i=_ONNX.FLOAT)
    base = graph.op("Add", graph.op("Add", _floats(graph, points), column), row)
    base = graph.op("Sub", graph.op("Div", base, size), _floats(graph, 1.0))  # (1, P, Ho, Wo, 2)
    return (
        graph.op("Div", _floats(graph, 2 * g.offset_scale), size),
        _reshape(graph, base, 1, 0, -1, 2),
    )


def _positions(graph: Any, control: Any, axis: int) -> Any:
    """0, 1, 2, ... along an axis of open size: (size, 1), float32."""
    size = graph.op("Gather", graph.op("Shape", control), _ints(graph, axis), axis_i=0)
    ends = [_constant(graph, np.int64(number)) for number in (0, 1)]
    size = graph.op("Squeeze", size, _ints(graph, 0))
    numbers = graph.op("Cast", graph.op("Range", ends[0], size, ends[1]), to_i=_ONNX.FLOAT)
    return graph.op("Unsqueeze", numbers, _ints(graph, 1))


def _output_shape(graph: Any, control: Any, channels: int) -> Any:
    """(N, Ho, Wo, C) as a tensor; a constant if no more than one of them is open."""
    sizes = [-1 if size is None else size for size in _sizes(control)[:3]]
    if sizes.count(-1) <= 1:
        return _ints(graph, *sizes, channels)
    first = graph.op("Gather", graph.op("Shape", control), _ints(graph, 0, 1, 2), axis_i=0)
    return graph.op("Concat", first, _ints(graph, channels), axis_i=0)


def _sizes(tensor: Any) -> list[int | None]:
    """The lengths of four axes, None where a run decides."""
    return tensor.type().varyingSizes() or [None] * 4


def _dtype(tensor: Any) -> str:
    return tensor.type().scalarType()


def _float32(graph: Any, tensor: Any) -> Any:
    return tensor if _dtype(tensor) == "Float" else graph.op("Cast", tensor, to_i=_ONNX.FLOAT)


def _typed_as(like: Any, tensor: Any) -> Any:
    """Say that a result has the rank, the dtype and the channels of the operator's input."""
    tensor.setType(like.type().with_sizes([None, None, None, _sizes(like)[3]]))
    return tensor


def _reshape(graph: Any, tensor: Any, *shape: int) -> Any:
    return graph.op("Reshape", tensor, _ints(graph, *shape))


def _ints(graph: Any, *values: int) -> Any:
    return _constant(graph, np.array(values, dtype=np.int64))


def _floats(graph: Any, values: Any) -> Any:
    return _constant(graph, np.asarray(values, dtype=np.float32))


def _constant(graph: Any, array: Any) -> Any:
    return graph.op("Constant", value_t=torch.from_numpy(np.array(array)))
