"""DCNv3 in ONNX: as standard operators around GridSample, or as one node of our own domain.

Both forms are translations of ``torch.ops.ops_dcnv3``: a model is exported as it is, with

    from ops_dcnv3.onnx import translation_table
    torch.onnx.export(model, args, dynamo=True, opset_version=18,
                      custom_translation_table=translation_table("grid_sample"))

Needs onnx and onnxscript (``pip install onnx onnxscript``); they are imported when a function runs.
Shape legend as in :mod:`ops_dcnv3.reference`; L = Ho*Wo output pixels.

Note [GridSample form]
    GridSample wants channels first and one map a group, (N*G, D, H, W), and a grid (N*G, P, L, 2)
    of x and y from -1 to 1 between the outer edges of the border pixels: ``(2*px + 1) / W - 1``.
    Its own zero padding is that of Note [Borders], so nothing is padded. The points stand in front
    of the pixels because every reshape then copies L or infers N*G, whatever of them is known.
    Four nodes move data, each because two layouts meet:

    1. the value, (N, H, W, C) -> (N, C, H, W);
    2. offsets and weights together, (N, L, 3*G*P) -> (N, 3*G*P, L), to put the groups in front;
    3. the offsets, (N*G, P, 2, L) -> (N*G, P, L, 2), as GridSample wants x beside y;
    4. the result, (N, C, L) -> (N, L, C).

    All of it is float32, in a half model too: at W = 336 half coordinates miss by 0.04 pixels.

Note [Positions far away]
    The operator leaves out a point whose position is outside, infinite or NaN, whatever its weight.
    A grid beyond the whole numbers of a runtime may mean anything, so the grid is clamped to where
    nothing contributes: infinite positions are right as well. NaN is not: ONNX says nothing of it,
    and ONNX Runtime answers some number for that pixel and group. Nor is a weight that is NaN of a
    point that is left out: it makes its pixel and group NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch

from .reference import Geometry

Form = Literal["grid_sample", "node"]

DOMAIN = "dcnv3"
"""Domain of the nodes ``DCNv3`` (input, offset, mask) and ``DCNv3Packed`` (input, offset_mask)."""

DOMAIN_VERSION = 1

PLUGIN_VERSION = "1"

_FAR = 2.0
"""A grid value of +-2 is a pixel outside of a map of one pixel, and further out of all others."""

_INT_ATTRIBUTES = (
    *("kernel_h", "kernel_w", "stride_h", "stride_w", "pad_h", "pad_w"),
    *("dilation_h", "dilation_w", "group", "remove_center", "softmax"),
)


def translation_table(form: Form) -> dict[Any, Callable[..., Any]]:
    """Return the translations of both operators for ``torch.onnx.export``.

    Args:
        form: ``"grid_sample"`` for standard operators of opset 18, ``"node"`` for one node of
            :data:`DOMAIN`, whose schema is registered with onnx.

    Raises:
        ImportError: onnx or onnxscript is not installed.
        ValueError: the form is unknown.
    """
    if form not in get_args(Form):
        raise ValueError(
            f"translation_table: expected form in {{{', '.join(get_args(Form))}}}, got {form!r}"
        )
    ops = torch.ops.ops_dcnv3
    if form == "node":
        register_schemas()
        return {ops.dcnv3.default: _node, ops.dcnv3_packed.default: _packed_node}
    import onnxscript  # noqa: F401  (the error comes here, not in the middle of an export)

    return {ops.dcnv3.default: _grid_sample, ops.dcnv3_packed.default: _packed_grid_sample}


# ------------------------------------------------------------------------------------- node of ours


def register_schemas() -> None:
    """Tell onnx of the nodes of :data:`DOMAIN`, once; checkers and shape inference then know them.

    Raises:
        ImportError: onnx is not installed.
    """
    from onnx import defs

    for name, inputs in (
        ("DCNv3", ("input", "offset", "mask")),
        ("DCNv3Packed", ("input", "offset_mask")),
    ):
        if not defs.has(name, max_inclusive_version=DOMAIN_VERSION, domain=DOMAIN):
            defs.register_schema(_schema(name, inputs))


def _schema(name: str, inputs: Sequence[str]) -> Any:
    from onnx.defs import OpSchema

    kinds = OpSchema.AttrType
    attributes = [OpSchema.Attribute(key, kinds.INT) for key in _INT_ATTRIBUTES]
    attributes.append(OpSchema.Attribute("offset_scale", kinds.FLOAT))
    attributes.append(OpSchema.Attribute("plugin_version", kinds.STRING))
    return OpSchema(
        name,
        DOMAIN,
        DOMAIN_VERSION,
        doc="Deformable convolution v3; every map is channels last.",
        inputs=[OpSchema.FormalParameter(key, "T") for key in inputs],
        outputs=[OpSchema.FormalParameter("output", "T")],
        type_constraints=[("T", ["tensor(float)", "tensor(float16)"], "")],
        attributes=attributes,
    )


def node_attributes(geometry: Geometry, softmax: bool) -> dict[str, int | float | str]:
    """Return the attributes of a node, by the names that the original's plugin has for them."""
    g = geometry
    values = (
        *(g.kernel_h, g.kernel_w, g.stride_h, g.stride_w, g.padding_h, g.padding_w),
        *(g.dilation_h, g.dilation_w, g.groups, int(g.remove_center), int(softmax)),
    )
    return {
        **dict(zip(_INT_ATTRIBUTES, values, strict=True)),
        "offset_scale": float(g.offset_scale),
        "plugin_version": PLUGIN_VERSION,
    }


def _node(input: Any, offset: Any, mask: Any, *static: Any) -> Any:
    return _own_domain().DCNv3(input, offset, mask, **_attributes(static))


def _packed_node(input: Any, offset_mask: Any, *static: Any) -> Any:
    return _own_domain().DCNv3Packed(input, offset_mask, **_attributes(static))


def _own_domain() -> Any:
    from onnxscript.values import Opset

    return Opset(DOMAIN, DOMAIN_VERSION)


def _attributes(static: Sequence[Any]) -> dict[str, int | float | str]:
    *geometry, softmax = static
    return node_attributes(Geometry(*geometry), softmax)


# --------------------------------------------------------------------------------- GridSample form


def _grid_sample(input: Any, offset: Any, mask: Any, *static: Any) -> Any:
    points = [_pixels_last(tensor, tensor.shape[3]) for tensor in (offset, mask)]
    return _sampled(input, offset, points[0], points[1], static)


def _packed_grid_sample(input: Any, offset_mask: Any, *static: Any) -> Any:
    from onnxscript import opset18 as op

    num_weights = Geometry(*static[:-1]).points_per_pixel()
    points = _pixels_last(offset_mask, offset_mask.shape[3])  # (N, at least 3*G*P, 1, L)
    axis = _ints(1)
    offset = op.Slice(points, _ints(0), _ints(2 * num_weights), axis)
    mask = op.Slice(points, _ints(2 * num_weights), _ints(3 * num_weights), axis)
    return _sampled(input, offset_mask, offset, mask, static)


def _pixels_last(tensor: Any, features: int) -> Any:
    """(N, Ho, Wo, features) -> (N, features, 1, L), float32."""
    from onnxscript import opset18 as op

    flat = op.Reshape(_float32(tensor), _ints(0, -1, features, 1))
    return op.Transpose(flat, perm=[0, 2, 3, 1])


def _sampled(input: Any, control: Any, offset: Any, mask: Any, static: Sequence[Any]) -> Any:
    """The operator on channels-first points; see Note [GridSample form].

    Args:
        input: (N, H, W, C).
        control: what has the output's size, (N, Ho, Wo, any).
        offset: (N, 2*G*P, 1, L), x before y of each point.
        mask: (N, G*P, 1, L), the weights or logits.
        static: the geometry's values, then ``softmax``.
    """
    from onnxscript import opset18 as op

    *values, softmax = static
    g = Geometry(*values)
    channels, num_points = input.shape[3], g.num_points
    value = op.Transpose(_float32(input), perm=[0, 3, 1, 2])
    value = op.Reshape(value, _ints(-1, channels // g.groups, 0, 0))  # (N*G, D, H, W)
    scale, base = _base_grid(input, control, g)
    offset = op.Reshape(offset, _ints(-1, num_points, 2, 0))
    offset = op.Transpose(offset, perm=[0, 1, 3, 2])  # (N*G, P, L, 2)
    grid = op.Clip(op.Add(op.Mul(offset, scale), base), _floats(-_FAR), _floats(_FAR))
    sampled = op.GridSample(
        value, grid, mode="bilinear", padding_mode="zeros", align_corners=0
    )  # (N*G, D, P, L)
    weight = op.Reshape(mask, _ints(-1, 1, num_points, 0))
    if softmax:
        weight = op.Softmax(weight, axis=2)
    output = op.ReduceSum(op.Mul(sampled, weight), _ints(2), keepdims=0)  # (N*G, D, L)
    output = op.Transpose(op.Reshape(output, _ints(-1, channels, 0)), perm=[0, 2, 1])
    return _like(op.Reshape(output, _output_shape(control, channels)), input)


def _output_shape(control: Any, channels: int) -> Any:
    """(N, Ho, Wo, C) as a tensor; a constant if no more than one of them is open."""
    from onnxscript import opset18 as op

    sizes = [size if isinstance(size, int) else -1 for size in control.shape[:3]]
    if sizes.count(-1) <= 1:
        return _ints(*sizes, channels)
    return op.Concat(op.Shape(control, start=0, end=3), _ints(channels), axis=0)


def _base_grid(input: Any, control: Any, g: Geometry) -> tuple[Any, Any]:
    """What multiplies an offset (2), and the grid without offsets (1, P, L, 2).

    Constants where sizes are known. Numerators are whole or half numbers and so exact in float32.
    """
    from onnxscript import opset18 as op

    points = _undeformed(g)[None, :, None, None, :]  # (1, P, 1, 1, 2)
    steps = np.array([g.stride_w, g.stride_h]) * 2.0
    sizes = (input.shape[2], input.shape[1], control.shape[2], control.shape[1])
    if all(isinstance(size, int) for size in sizes):
        width, height, out_w, out_h = sizes
        pixels = np.stack(np.meshgrid(np.arange(out_w), np.arange(out_h)), axis=-1)
        size = np.array([width, height])
        base = ((pixels * steps)[None, None] + points) / size - 1
        return _floats(2 * g.offset_scale / size), _floats(base.reshape(1, -1, out_h * out_w, 2))
    column = op.Mul(_positions(control, 2), _floats(steps * [1, 0]))  # (Wo, 2)
    row = op.Mul(_positions(control, 1), _floats(steps * [0, 1]))  # (Ho, 2)
    row = op.Unsqueeze(row, _ints(1))  # (Ho, 1, 2)
    size = op.Gather(_float32(op.Shape(input, start=1, end=3)), _ints(1, 0))
    base = op.Add(op.Add(_floats(points), column), row)  # (1, P, Ho, Wo, 2)
    base = op.Sub(op.Div(base, size), _floats(1.0))
    return op.Div(_floats(2 * g.offset_scale), size), op.Reshape(base, _ints(1, 0, -1, 2))


def _undeformed(g: Geometry) -> np.ndarray:
    """``2*px + 1`` and ``2*py + 1`` of output pixel (0, 0) without offsets: (P, 2)."""
    kernel, dilation = np.array([g.kernel_w, g.kernel_h]), np.array([g.dilation_w, g.dilation_h])
    half = dilation * (kernel - 1) // 2
    i, j = np.meshgrid(np.arange(g.kernel_w), np.arange(g.kernel_h), indexing="ij")
    steps = np.stack([i.ravel(), j.ravel()], axis=-1)  # column by column
    if g.remove_center:
        steps = steps[(steps != kernel // 2).any(axis=-1)]
    corner = half - np.array([g.padding_w, g.padding_h])
    return 2 * (corner + g.offset_scale * (steps * dilation - half)) + 1


def _positions(control: Any, axis: int) -> Any:
    """0, 1, 2, ... along an axis of open size: (size, 1), float32."""
    from onnxscript import opset18 as op

    size = op.Squeeze(op.Shape(control, start=axis, end=axis + 1), _ints(0))
    numbers = op.Range(_constant(np.int64(0)), size, _constant(np.int64(1)))
    return op.Unsqueeze(_float32(numbers), _ints(1))


def _float32(tensor: Any) -> Any:
    from onnxscript import opset18 as op

    dtype = getattr(tensor, "dtype", None)
    float32 = _onnx_float32()
    return tensor if dtype == float32 else op.Cast(tensor, to=float32)


def _like(tensor: Any, other: Any) -> Any:
    """Cast float32 to the dtype of another tensor."""
    from onnxscript import opset18 as op

    return tensor if other.dtype == _onnx_float32() else op.Cast(tensor, to=other.dtype)


def _onnx_float32() -> int:
    from onnx import TensorProto

    return TensorProto.FLOAT


def _ints(*values: int) -> Any:
    return _constant(np.array(values, dtype=np.int64))


def _floats(values: Any) -> Any:
    return _constant(np.asarray(values, dtype=np.float32))


def _constant(array: Any) -> Any:
    from onnx import numpy_helper
    from onnxscript import opset18 as op

    return op.Constant(value=numpy_helper.from_array(np.asarray(array)))
