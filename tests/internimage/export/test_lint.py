"""Files that some runtime refuses, or gets wrong without a word, are refused here."""

from __future__ import annotations

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="onnx is not installed")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from internimage.export.lint import lint  # noqa: E402


def write(path, nodes, *, opset=18, rank=4, inputs=(), constants=()):
    """Write a graph from x (1, 2, 4, 4) and g (1, 3, 3, 2) to y."""
    values = {"x": (1, 2, 4, 4), "g": (1, 3, 3, 2), **dict(inputs)}
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(k, TensorProto.FLOAT, v) for k, v in values.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["a", "b", "c", "d"][:rank])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants],
    )
    imports = [helper.make_opsetid("", opset)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=9), path)
    return path


def sampler(**attributes):
    return helper.make_node("GridSample", ["x", "g"], ["y"], name="sampler", **attributes)


def test_a_bilinear_sampler_with_zeros_outside_passes(tmp_path):
    attributes = {"mode": "bilinear", "padding_mode": "zeros", "align_corners": 0}
    path = write(tmp_path / "x.onnx", [sampler(**attributes)])
    assert [node.op_type for node in lint(path).graph.node] == ["GridSample"]
    lint(write(tmp_path / "defaults.onnx", [sampler()]))


@pytest.mark.parametrize(
    "attributes",
    [{"mode": "nearest"}, {"mode": "bicubic"}, {"padding_mode": "border"}, {"align_corners": 1}],
    ids=str,
)
def test_another_sampler_is_refused_by_name(attributes, tmp_path):
    path = write(tmp_path / "x.onnx", [sampler(**attributes)])
    with pytest.raises(ValueError, match="GridSample with mode bilinear.* in sampler"):
        lint(path)


def test_a_sampler_of_half_coordinates_is_refused(tmp_path):
    nodes = [
        helper.make_node("Cast", ["x"], ["half_x"], to=TensorProto.FLOAT16),
        helper.make_node("Cast", ["g"], ["half_g"], to=TensorProto.FLOAT16),
        helper.make_node("GridSample", ["half_x", "half_g"], ["half_y"], name="sampler"),
        helper.make_node("Cast", ["half_y"], ["y"], to=TensorProto.FLOAT),
    ]
    with pytest.raises(ValueError, match="GridSample of float32, got FLOAT16 for half_x in samp"):
        lint(write(tmp_path / "x.onnx", nodes))


def test_the_opset_that_renames_the_mode_is_refused(tmp_path):
    path = write(tmp_path / "x.onnx", [sampler(mode="linear")], opset=20)
    with pytest.raises(ValueError, match=r"opset in \(17, 18, 19\), got 20"):
        lint(path)


@pytest.mark.parametrize("operator", ["ReduceSum", "ReduceMean", "Squeeze"])
def test_axes_have_to_be_constants(operator, tmp_path):
    node = helper.make_node(operator, ["x", "axes"], ["y"], name="reducer")
    axes = np.array([0], dtype=np.int64)
    rank = 3 if operator == "Squeeze" else 4
    lint(write(tmp_path / "constant.onnx", [node], rank=rank, constants=[("axes", axes)]))
    computed = [
        helper.make_node("Shape", ["g"], ["sizes"], start=0, end=1),
        helper.make_node("Sub", ["sizes", "sizes"], ["axes"]),
        node,
    ]
    with pytest.raises(ValueError, match="the axes of reducer as a constant"):
        lint(write(tmp_path / "computed.onnx", computed, rank=rank))


def test_a_sampler_inside_a_branch_is_found(tmp_path):
    outputs = [helper.make_tensor_value_info("y_inner", TensorProto.FLOAT, list("abcd"))]
    inner = helper.make_node("GridSample", ["x", "g"], ["y_inner"], mode="nearest", name="inner")
    branch = helper.make_graph([inner], "branch", [], outputs)
    node = helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch)
    path = write(tmp_path / "x.onnx", [node], constants=[("yes", np.array(True))])
    with pytest.raises(ValueError, match="in inner"):
        lint(path)


def branching(nodes, outputs="y_inner", initializers=()):
    """An If whose branches are these nodes, which end in ``outputs``."""
    value = helper.make_tensor_value_info(outputs, TensorProto.FLOAT, list("abcd"))
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in initializers]
    branch = helper.make_graph(nodes, "branch", [], [value], tensors)
    return helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch)


YES = [("yes", np.array(True))]


@pytest.mark.parametrize("cast_outside", [False, True])
def test_a_sampler_of_half_coordinates_inside_a_branch_is_refused(cast_outside, tmp_path):
    casts = [
        helper.make_node("Cast", ["x"], ["half_x"], to=TensorProto.FLOAT16),
        helper.make_node("Cast", ["g"], ["half_g"], to=TensorProto.FLOAT16),
    ]
    inner = [
        helper.make_node("GridSample", ["half_x", "half_g"], ["half_y"], name="inner"),
        helper.make_node("Cast", ["half_y"], ["y_inner"], to=TensorProto.FLOAT),
    ]
    nodes = [*casts, branching(inner)] if cast_outside else [branching([*casts, *inner])]
    path = write(tmp_path / "x.onnx", nodes, constants=YES)
    with pytest.raises(ValueError, match="GridSample of float32, got FLOAT16 for half_x in inner"):
        lint(path)
    whole = helper.make_node("GridSample", ["x", "g"], ["y_inner"], name="inner")
    lint(write(tmp_path / "whole.onnx", [branching([whole])], constants=YES))


def test_axes_may_be_constants_of_a_branch(tmp_path):
    reducer = helper.make_node("ReduceSum", ["x", "axes"], ["y_inner"], name="reducer")
    axes = [("axes", np.array([0]))]
    path = write(tmp_path / "x.onnx", [branching([reducer], initializers=axes)], constants=YES)
    lint(path)
    lint(write(tmp_path / "y.onnx", [branching([reducer])], constants=[*YES, *axes]))
    # Known in the branch alone: outside of it the name is a result.
    computed = [
        helper.make_node("Shape", ["g"], ["sizes"], start=0, end=1),
        helper.make_node("Sub", ["sizes", "sizes"], ["outer"]),
        branching([helper.make_node("ReduceSum", ["x", "outer"], ["y_inner"], name="reducer")]),
    ]
    with pytest.raises(ValueError, match="the axes of reducer as a constant"):
        lint(write(tmp_path / "z.onnx", computed, constants=YES))


def test_a_file_that_breaks_the_standard_is_refused(tmp_path):
    path = write(tmp_path / "x.onnx", [helper.make_node("Relu", ["nowhere"], ["y"])])
    with pytest.raises(ValueError, match="expected a valid ONNX file, got .*nowhere"):
        lint(path)
