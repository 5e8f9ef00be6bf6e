"""The operator's ONNX forms, run in ONNX Runtime beside the plain loops of the oracle."""

from __future__ import annotations

import dataclasses
import math
import sys
import warnings
from collections import Counter
from typing import Any

import pytest
import torch
from dcnv3_cases import Case, run_oracle
from test_oracle import SMALL_CASES
from torch import Tensor, nn

import ops_dcnv3
from ops_dcnv3 import onnx as forms
from ops_dcnv3.ops import dcnv3_packed

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxscript", reason="onnxscript is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

OPEN = torch.export.Dim.DYNAMIC
SEVEN_CHANNELS_MORE = 7


class Layer(nn.Module):
    """The operator alone, on separate tensors or on packed ones."""

    def __init__(self, case: Case, *, packed: bool) -> None:
        super().__init__()
        self.case, self.packed = case, packed

    def forward(self, input: Tensor, *points: Tensor) -> Tensor:
        """Run it."""
        if self.packed:
            return dcnv3_packed(input, *points, self.case.static_arguments, self.case.softmax)
        return ops_dcnv3.dcnv3(input, *points, **self.case.settings)


def inputs_of(case: Case, dtype: torch.dtype, *, packed: bool, **kwargs: Any) -> tuple[Tensor, ...]:
    image, offset, mask = case.tensors(dtype, **kwargs)
    return (image, torch.cat([offset, mask], dim=-1)) if packed else (image, offset, mask)


def export(
    case: Case,
    *,
    form: forms.Form = "grid_sample",
    packed: bool = True,
    axes: tuple[int, ...] = (),
    dtype: torch.dtype = torch.float32,
    example: tuple[Tensor, ...] | None = None,
) -> onnx.ModelProto:
    """The graph of a layer whose N, H and W (axes 0, 1, 2) are open where asked."""
    example = example or inputs_of(case, dtype, packed=packed)
    opened = [dict.fromkeys(axes, OPEN) for _ in example]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            Layer(case, packed=packed).eval(), example, dynamo=True, opset_version=18,
            dynamic_shapes=(opened[0], tuple(opened[1:])), verbose=False,
            input_names=["input", "offset_mask"] if packed else ["input", "offset", "mask"],
            output_names=["output"], custom_translation_table=forms.translation_table(form),
        )  # fmt: skip
    assert program is not None
    return program.model_proto


def run(model: onnx.ModelProto, tensors: tuple[Tensor, ...]) -> Tensor:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [value.name for value in session.get_inputs()]
    feed = {name: tensor.numpy() for name, tensor in zip(names, tensors, strict=True)}
    return torch.from_numpy(session.run(None, feed)[0])


def exact_output(case: Case, tensors: tuple[Tensor, ...]) -> Tensor:
    return run_oracle(tensors, case.grad_output(), case)[0]


def error(case: Case, model: onnx.ModelProto, *, packed: bool = True) -> float:
    """The largest difference to the oracle, over the oracle's largest value."""
    exact = exact_output(case, case.tensors(torch.float32))
    found = run(model, inputs_of(case, torch.float32, packed=packed)).double()
    assert found.shape == exact.shape
    return float((found - exact).abs().max() / exact.abs().max())


@pytest.mark.parametrize("case", SMALL_CASES, ids=str)
def test_a_graph_of_known_size_gives_what_the_definition_gives(case):
    assert error(case, export(case)) < 5e-6


@pytest.mark.parametrize("case", SMALL_CASES, ids=str)
def test_a_graph_of_open_size_gives_it_at_every_size(case):
    model = export(case, axes=(0, 1, 2))
    assert error(case, model) < 5e-6
    larger = dataclasses.replace(case, batch=3, height=case.height + 4, width=case.width + 3)
    assert error(larger, model) < 5e-6
    assert error(dataclasses.replace(larger, batch=1, width=case.width), model) < 5e-6


@pytest.mark.slow
@pytest.mark.parametrize("axes", [(), (0,), (1,), (2,), (1, 2)], ids=str)
def test_separate_tensors_and_each_open_axis_are_as_good(axes):
    case = Case(height=7, kernel_size=(3, 2), padding=(2, 1), offset_scale=1.5, softmax=True)
    model = export(case, packed=False, axes=axes)
    sizes = {name: getattr(case, name) for name in ("batch", "height", "width")}
    other = {name: size + 2 * (i in axes) for i, (name, size) in enumerate(sizes.items())}
    assert error(case, model, packed=False) < 5e-6
    assert error(dataclasses.replace(case, **other), model, packed=False) < 5e-6


def test_columns_behind_the_weights_are_not_read():
    case = Case(softmax=True)
    image, packed = inputs_of(case, torch.float32, packed=True)
    beyond = torch.full((*packed.shape[:3], SEVEN_CHANNELS_MORE), math.nan)
    tensors = (image, torch.cat([packed, beyond], dim=-1))
    found = run(export(case, example=tensors), tensors)
    exact = exact_output(case, case.tensors(torch.float32))
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("axes", [(), (0, 1, 2)], ids=["known", "open"])
def test_half_tensors_are_sampled_in_float32(axes):
    # 0.5 is left of a half number's digits at 1,000 pixels: half positions would be nonsense.
    case = Case(batch=2, height=2, width=1000, group_channels=1, softmax=True)
    model = export(case, axes=axes, dtype=torch.float16)
    tensors = case.tensors(torch.float16)
    found = run(model, inputs_of(case, torch.float16, packed=True))
    assert found.dtype == torch.float16
    exact = exact_output(case, tensors)
    torch.testing.assert_close(found.double(), exact, rtol=1e-3, atol=1e-3)


def test_data_is_moved_four_times_and_never_padded():
    model = export(Case(softmax=True))
    counted = Counter(node.op_type for node in model.graph.node)
    assert counted["Transpose"] == 4
    assert "Pad" not in counted
    (sampler,) = (node for node in model.graph.node if node.op_type == "GridSample")
    attributes = {field.name: onnx.helper.get_attribute_value(field) for field in sampler.attribute}
    assert attributes == {"mode": b"bilinear", "padding_mode": b"zeros", "align_corners": 0}


@pytest.mark.parametrize("far", [40.0, -1e6, 3e9, -3e38, math.inf, -math.inf], ids=str)
def test_positions_far_outside_contribute_nothing(far):
    case = Case(height=1, width=1, stride=1, batch=1)
    image, offset, mask = case.tensors(torch.float32)
    offset[..., ::4] = far  # x of every other point
    tensors = (image, offset, mask)
    found = run(export(case, packed=False), tensors)
    torch.testing.assert_close(found, ops_dcnv3.dcnv3(*tensors, **case.settings), rtol=0, atol=1e-5)


@pytest.mark.parametrize("spoilt", ["position", "weight"])
def test_nan_reaches_no_other_pixel_or_group(spoilt):
    """Its own pixel is the difference to the operator, which leaves such a point out."""
    case = Case(batch=1)
    image, offset, mask = case.tensors(torch.float32)
    if spoilt == "position":
        offset[0, 2, 3, 0] = math.nan  # of group 0
    else:
        offset[0, 2, 3, 0], mask[0, 2, 3, 0] = 1e6, math.nan
    tensors = (image, offset, mask)
    found = run(export(case, packed=False), tensors)
    expected = ops_dcnv3.dcnv3(*tensors, **case.settings)
    assert expected.isfinite().all()
    found[0, 2, 3, : case.group_channels] = expected[0, 2, 3, : case.group_channels]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "separate"])
@pytest.mark.parametrize("axes", [(), (0, 1, 2)], ids=["known", "open"])
def test_the_node_passes_the_checker_and_carries_every_argument(packed, axes):
    case = Case(
        kernel_size=(3, 5), stride=(2, 1), padding=(2, 3), dilation=(2, 1), groups=4,
        height=9, width=8, offset_scale=1.25, remove_center=True, softmax=True,
    )  # fmt: skip
    model = export(case, form="node", packed=packed, axes=axes)
    onnx.checker.check_model(model, full_check=True)
    (node,) = model.graph.node
    assert (node.domain, node.op_type) == ("dcnv3", "DCNv3Packed" if packed else "DCNv3")
    assert ("dcnv3", 1) in {(used.domain, used.version) for used in model.opset_import}
    attributes = {field.name: onnx.helper.get_attribute_value(field) for field in node.attribute}
    assert attributes == {
        "kernel_h": 3, "kernel_w": 5, "stride_h": 2, "stride_w": 1, "pad_h": 2, "pad_w": 3,
        "dilation_h": 2, "dilation_w": 1, "group": 4, "offset_scale": 1.25, "remove_center": 1,
        "softmax": 1, "plugin_version": b"1",
    }  # fmt: skip


def test_the_checker_refuses_a_node_without_its_arguments():
    forms.register_schemas()
    forms.register_schemas()  # a second time is no mistake
    helper = onnx.helper
    node = helper.make_node("DCNv3", ["x", "y", "z"], ["o"], domain="dcnv3", kernel_h=3)
    context = onnx.checker.C.CheckerContext()
    context.ir_version, context.opset_imports = 10, {"": 18, "dcnv3": 1}
    with pytest.raises(onnx.checker.ValidationError, match="kernel_w|Required attribute"):
        onnx.checker.check_node(node, context)


def test_an_unknown_form_is_refused():
    with pytest.raises(ValueError, match="expected form in {grid_sample, node}, got 'plugin'"):
        forms.translation_table("plugin")  # type: ignore[arg-type]


@pytest.mark.parametrize("form", ["grid_sample", "node"])
def test_without_its_packages_the_missing_one_is_named(form, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript" if form == "grid_sample" else "onnx", None)
    with pytest.raises(ImportError, match="onnx"):
        forms.translation_table(form)
