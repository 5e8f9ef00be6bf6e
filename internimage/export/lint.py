"""Rules for exported files: what some runtime refuses, or gets wrong without a word."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    nodes = list(all_nodes(model.graph))
    _check_sampled_types(model, nodes)
    known = {value.name for value in model.graph.initializer}
    known |= {node.output[0] for node in nodes if node.op_type == "Constant"}
    for node in nodes:
        if node.op_type == "GridSample":
            _check_grid_sample(node)
        if node.op_type.startswith(_WITH_AXES) and any(
            name and name not in known for name in node.input[1:]
        ):
            raise ValueError(f"lint: expected the axes of {node.name} as a constant, got a result")
    return model


def all_nodes(graph: Any) -> Iterator[Any]:
    """Yield the nodes of an ``onnx.GraphProto`` and of the graphs within them."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            # `g` of an attribute without a graph is an empty one.
            for inner in [attribute.g, *attribute.graphs]:
                yield from all_nodes(inner)


def _check_sampled_types(model: Any, nodes: Sequence[Any]) -> None:
    """Half coordinates would miss by pixels, and TensorRT wants values of the grid's type."""
    from onnx import TensorProto, shape_inference

    wanted = {name for node in nodes if node.op_type == "GridSample" for name in node.input}
    types = _element_types(model.graph)
    # Only where the file does not say: inference copies the model with all of its weights.
    if not wanted <= types.keys():
        types |= _element_types(shape_inference.infer_shapes(model).graph)
    for node in nodes:
        for name in node.input if node.op_type == "GridSample" else ():
            got = types.get(name, TensorProto.FLOAT)
            if got != TensorProto.FLOAT:
                raise ValueError(
                    f"lint: expected GridSample of float32, got {TensorProto.DataType.Name(got)} "
                    f"for {name} in {node.name}"
                )


def _element_types(graph: Any) -> dict[str, int]:
    values = [*graph.input, *graph.value_info, *graph.output]
    types = {value.name: value.type.tensor_type.elem_type for value in values}
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
