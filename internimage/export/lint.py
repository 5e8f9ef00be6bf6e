"""Rules for exported files: what some runtime refuses, or gets wrong without a word."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from internimage.export.options import OPSETS

_WITH_AXES = ("Reduce", "Squeeze", "Unsqueeze")
"""How operators begin whose second input are axes, which parsers want to know beforehand."""


def lint(path: Path) -> Any:
    """Check a file against the rules and return its graph, without weights.

    Args:
        path: the file.

    Returns:
        An ``onnx.ModelProto``.

    Raises:
        ValueError: the file breaks a rule; the message names the node.
    """
    import onnx

    from ops_dcnv3.onnx import register_schemas

    register_schemas()  # or the checker passes over our node, whatever attributes it has
    try:
        # The path, not the model: a message of more than 2 GiB cannot be handed over.
        onnx.checker.check_model(path, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ValueError(
            f"lint: expected a valid ONNX file, got {' '.join(str(error).split())[:300]}"
        ) from error
    model = onnx.load(path, load_external_data=False)
    opsets = {imported.domain: imported.version for imported in model.opset_import}
    if opsets.get("") not in OPSETS:
        raise ValueError(f"lint: expected opset in {OPSETS}, got {opsets.get('')}")
    # With those within loops and branches: the rules hold there too, and boxes = loops writes some.
    for scope in _scopes(model.graph):
        for node in scope.graph.node:
            if node.op_type == "GridSample":
                _check_grid_sample(node)
            if node.op_type.startswith(_WITH_AXES) and any(
                name and name not in scope.constants for name in node.input[1:]
            ):
                raise ValueError(
                    f"lint: expected the axes of {node.name} as a constant, got a result"
                )
    _check_sampled_types(model)
    return model


def all_nodes(graph: Any) -> Iterator[Any]:
    """Yield the nodes of an ``onnx.GraphProto`` and of the graphs within them."""
    for scope in _scopes(graph):
        yield from scope.graph.node


@dataclasses.dataclass(frozen=True)
class _Scope:
    """A graph with what is known of the names in it, those of the graphs around it among them.

    Args:
        graph: an ``onnx.GraphProto``.
        types: name -> element type, of ``onnx.TensorProto``.
        constants: names of tensors whose values are in the file.
    """

    graph: Any
    types: Mapping[str, int]
    constants: frozenset[str]


def _scopes(graph: Any, around: _Scope | None = None) -> Iterator[_Scope]:
    """Yield a graph and all graphs within it, loops and branches."""
    constants = {tensor.name for tensor in graph.initializer}
    constants |= {node.output[0] for node in graph.node if node.op_type == "Constant"}
    types = _element_types(graph)
    if around is not None:
        constants |= around.constants
        types = {**around.types, **types}
    scope = _Scope(graph, types, frozenset(constants))
    yield scope
    for node in graph.node:
        for attribute in node.attribute:
            # `g` of an attribute without a graph is an empty one.
            for inner in [attribute.g, *attribute.graphs]:
                if inner.node:
                    yield from _scopes(inner, scope)


def _check_sampled_types(model: Any) -> None:
    """Half coordinates would miss by pixels, and TensorRT wants values of the grid's type."""
    from onnx import TensorProto, shape_inference

    sampled = _sampled(model.graph)
    # Only where the file does not say: inference copies the model with all of its weights.
    if any(kind is None for _, _, kind in sampled):
        sampled = _sampled(shape_inference.infer_shapes(model).graph)
    for node, name, kind in sampled:
        if kind not in (None, TensorProto.FLOAT):
            raise ValueError(
                f"lint: expected GridSample of float32, got {TensorProto.DataType.Name(kind)} for "
                f"{name} in {node.name}"
            )


def _sampled(graph: Any) -> list[tuple[Any, str, int | None]]:
    """Return each GridSample with the name and the type of each of its inputs."""
    return [
        (node, name, scope.types.get(name))
        for scope in _scopes(graph)
        for node in scope.graph.node
        if node.op_type == "GridSample"
        for name in node.input
    ]


def _element_types(graph: Any) -> dict[str, int]:
    values = [*graph.input, *graph.value_info, *graph.output]
    kinds = {value.name: value.type.tensor_type.elem_type for value in values}
    types = {name: kind for name, kind in kinds.items() if kind}  # 0 stands for no type
    return types | {tensor.name: tensor.data_type for tensor in graph.initializer}


def _check_grid_sample(node: Any) -> None:
    from onnx import helper

    got = {field.name: helper.get_attribute_value(field) for field in node.attribute}
    # What is left out has ONNX's default, which for all three is what we want.
    mode, padding = got.get("mode", b"bilinear"), got.get("padding_mode", b"zeros")
    if (mode, padding, got.get("align_corners", 0)) != (b"bilinear", b"zeros", 0):
        raise ValueError(
            "lint: expected GridSample with mode bilinear, padding_mode zeros, align_corners 0, "
            f"got {got} in {node.name}"
        )
