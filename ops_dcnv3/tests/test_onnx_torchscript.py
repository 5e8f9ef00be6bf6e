"""The operator through the exporter by TorchScript: in ONNX Runtime, against the operator."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import ops_dcnv3
from ops_dcnv3.onnx_torchscript import register_torchscript_symbolics
from ops_dcnv3.reference import Geometry

onnx = pytest.importorskip("onnx", reason="`pip install onnx`")
onnxruntime = pytest.importorskip("onnxruntime", reason="`pip install onnxruntime`")

OPSET = 17
CHANNELS = 8

CASES = {
    "plain": dict(kernel_size=3, groups=2),
    "stride, no centre, softmax": dict(
        kernel_size=3, groups=2, stride=2, remove_center=True, softmax=True, offset_scale=0.7
    ),
    "oblong": dict(kernel_size=(3, 5), groups=1, dilation=(2, 1), padding=(2, 1), stride=(1, 2)),
}


class Layer(nn.Module):
    def __init__(self, **static: Any) -> None:
        super().__init__()
        self.static = static

    def forward(self, input: Tensor, offset: Tensor, mask: Tensor) -> Tensor:
        return ops_dcnv3.dcnv3(input, offset, mask, **self.static)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the exporter is the old one
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # of checks of shapes
        yield


def geometry_of(case: dict[str, Any]) -> Geometry:
    def pair(name: str, default: int) -> tuple[int, int]:
        value = case.get(name, default)
        return value if isinstance(value, tuple) else (value, value)

    sizes = [*pair("kernel_size", 3), *pair("stride", 1), *pair("padding", 1), *pair("dilation", 1)]
    scale, no_centre = case.get("offset_scale", 1.0), case.get("remove_center", False)
    return Geometry(*sizes, case["groups"], scale, no_centre)


def draw(case: dict[str, Any], batch: int, height: int, width: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(height)
    geometry = geometry_of(case)
    out = geometry.output_size(height, width)
    points = geometry.points_per_pixel()
    return [
        torch.randn(batch, height, width, CHANNELS, generator=generator),
        2 * torch.randn(batch, *out, 2 * points, generator=generator),
        torch.randn(batch, *out, points, generator=generator),
    ]


def export(model: nn.Module, inputs: list[Tensor], *, dynamic: bool) -> bytes:
    names = ["input", "offset", "mask"][: len(inputs)]
    axes = {name: {0: "batch", 1: f"{name}_h", 2: f"{name}_w"} for name in names}
    file = io.BytesIO()
    torch.onnx.export(
        model,
        tuple(inputs),
        file,
        dynamo=False,
        opset_version=OPSET,
        input_names=names,
        output_names=["output"],
        dynamic_axes=axes if dynamic else None,
    )
    return file.getvalue()


def run(file: bytes, inputs: list[Tensor], options: Any = None) -> np.ndarray:
    session = onnxruntime.InferenceSession(file, options)
    names = [one.name for one in session.get_inputs()]
    return session.run(None, dict(zip(names, (x.numpy() for x in inputs), strict=True)))[0]


@pytest.mark.parametrize("dynamic", [False, True], ids=["fixed", "open"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_standard_nodes_give_the_operators_result(case: dict[str, Any], dynamic: bool):
    register_torchscript_symbolics("grid_sample", OPSET)
    model, inputs = Layer(**case), draw(case, 2, 9, 11)
    file = export(model, inputs, dynamic=dynamic)
    domains = {node.domain for node in onnx.load_from_string(file).graph.node}
    assert domains == {""}
    for given in [inputs, draw(case, 1, 13, 7)] if dynamic else [inputs]:
        expected = model(*given).numpy()
        np.testing.assert_allclose(run(file, given), expected, atol=2e-6 * abs(expected).max())


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_node_runs_in_onnx_runtime_with_our_library(case: dict[str, Any]):
    from ops_dcnv3.onnxruntime import session_options

    register_torchscript_symbolics("node", OPSET)
    model, inputs = Layer(**case), draw(case, 2, 9, 11)
    file = export(model, inputs, dynamic=True)
    nodes = [node.op_type for node in onnx.load_from_string(file).graph.node]
    assert nodes == ["DCNv3"]
    np.testing.assert_array_equal(
        run(file, inputs, session_options()), model(*inputs).detach().numpy()
    )


@pytest.mark.parametrize("form", ["grid_sample", "node"])
def test_the_modules_own_operator_is_written_in_both_forms(form: Any):
    from ops_dcnv3.onnxruntime import session_options

    register_torchscript_symbolics(form, OPSET)
    torch.manual_seed(0)
    model = ops_dcnv3.DCNv3(CHANNELS, group=2).eval()
    nn.init.normal_(model.offset.weight, std=0.3)
    image = torch.randn(2, 9, 11, CHANNELS)
    expected = model(image).detach().numpy()
    found = run(export(model, [image], dynamic=True), [image], session_options())
    np.testing.assert_allclose(found, expected, atol=2e-6 * abs(expected).max())


def test_a_half_model_samples_in_float32_and_answers_in_half():
    register_torchscript_symbolics("grid_sample", OPSET)
    case = CASES["plain"]
    model = Layer(**case)
    inputs = [tensor.half() for tensor in draw(case, 1, 9, 11)]
    file = export(model, inputs, dynamic=False)
    casts = [node for node in onnx.load_from_string(file).graph.node if node.op_type == "Cast"]
    assert len(casts) == 4  # three in, one out
    found = run(file, inputs)
    assert found.dtype == np.float16
    expected = model(*inputs).float().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-3 * abs(expected).max())


def test_an_unknown_form_and_a_too_old_opset_are_refused():
    with pytest.raises(ValueError, match="form in .*got 'plugin'"):
        register_torchscript_symbolics("plugin", OPSET)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="opset >= 16.*got 11"):
        register_torchscript_symbolics("grid_sample", 11)
