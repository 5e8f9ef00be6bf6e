"""ONNX files that are right, or not there."""

from __future__ import annotations

import json
import math
import sys

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from internimage.export import ExportOptions, placing
from internimage.export.half import to_half
from internimage.export.report import Difference
from tests.disks import files_of_at_most
from tests.internimage.export.small_models import METADATA, SmallModel, export_small, images

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

OPEN = ExportOptions(dynamic=frozenset({"batch", "height", "width"}))


def answer(path, inputs) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})[0]


def test_no_rule_that_compares_every_node_with_every_other_is_applied(tmp_path, monkeypatch):
    from onnxscript import optimizer, rewriter

    applied, optimize = [], optimizer.optimize

    def look(model, **limits):
        applied.extend(rule.name for rule in rewriter._DEFAULT_REWRITE_RULES)
        return optimize(model, **limits)

    before = rewriter._DEFAULT_REWRITE_RULES
    assert "SlicesSplit" in {rule.name for rule in before}
    monkeypatch.setattr(optimizer, "optimize", look)
    export_small(tmp_path / "small.onnx")
    assert len(applied) == len(before) - 1 and "SlicesSplit" not in applied
    assert rewriter._DEFAULT_REWRITE_RULES is before


def test_the_report_has_every_check_and_the_file_what_a_runner_needs(tmp_path):
    path = tmp_path / "small.onnx"
    report = export_small(path, checks=[images(1, 3, 16, 16, seed=1)])
    assert [check.shapes for check in report.checks] == ["1x3x16x16"] * 2
    assert 0 < report.max_difference < 1e-5
    assert report.size == path.stat().st_size
    text = str(report)
    assert f"{report.nodes.total()} nodes, {report.transposes} of them transposes" in text
    assert text.count("difference to PyTorch") == 2

    model = onnx.load(path)
    assert sum(node.op_type == "Transpose" for node in model.graph.node) == report.transposes
    (property_,) = model.metadata_props
    assert property_.key == "internimage"
    facts = json.loads(property_.value)
    assert facts["classes"] == list(METADATA.classes)
    assert (facts["format"], facts["batch"], facts["input_size"]) == (1, 1, [16, 16])
    assert (facts["precision"], facts["operator"]) == ("fp32", "grid_sample")


@pytest.mark.slow
def test_open_axes_carry_their_names_and_take_any_size(tmp_path):
    path = tmp_path / "small.onnx"
    checks = [images(1, 3, 16, 16), images(3, 3, 19, 40), images(5, 3, 7, 8)]
    report = export_small(path, options=OPEN, example=images(2, 3, 16, 16), checks=checks)
    assert len(report.checks) == 4
    graph = onnx.load(path).graph
    sizes = [size.dim_param or size.dim_value for size in graph.input[0].type.tensor_type.shape.dim]
    assert sizes == ["batch", 3, "height", "width"]
    assert graph.output[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    facts = json.loads(onnx.load(path).metadata_props[0].value)
    assert (facts["batch"], facts["input_size"]) == (None, [None, None])


@pytest.mark.slow
def test_axes_that_are_not_asked_for_stay_fixed(tmp_path):
    path = tmp_path / "small.onnx"
    only_width = ExportOptions(dynamic=frozenset({"width"}))
    export_small(path, options=only_width, checks=[images(1, 3, 16, 24)])
    shape = onnx.load(path).graph.input[0].type.tensor_type.shape
    assert [size.dim_param or size.dim_value for size in shape.dim] == [1, 3, 16, "width"]


def test_nothing_of_the_machine_that_exported_is_in_the_file(tmp_path):
    path = tmp_path / "small.onnx"
    export_small(path)
    content = path.read_bytes()
    assert b".py" not in content
    assert b"stack_trace" not in content
    assert str(tmp_path).encode() not in content


@pytest.mark.slow
@pytest.mark.parametrize("opset", [17, 19])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_other_opsets_are_conversions_that_are_as_right(opset, precision, tmp_path):
    path = tmp_path / "small.onnx"
    options = ExportOptions(opset=opset, precision=precision, dynamic=frozenset({"height"}))
    model = SmallModel().eval()
    half = precision == "fp16"
    export_small(
        path,
        to_half(model) if half else model,
        options=options,
        reference=model,
        tolerance=2e-3 if half else 1e-5,
        checks=[images(1, 3, 20, 16)],
    )
    written = onnx.load(path)
    assert {used.domain: used.version for used in written.opset_import} == {"": opset}
    assert written.ir_version == {17: 8, 19: 9}[opset]


def test_a_half_file_has_float32_outside_and_samples_in_float32(tmp_path):
    path = tmp_path / "small.onnx"
    model = SmallModel().eval()
    options = ExportOptions(precision="fp16")
    report = export_small(path, to_half(model), options=options, reference=model, tolerance=2e-3)
    assert report.max_difference > 1e-5  # it is half inside
    # in and out of the model, and of the one layer two in and one out
    assert report.nodes["Cast"] == 5
    graph = onnx.shape_inference.infer_shapes(onnx.load(path)).graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    (sampler,) = (node for node in graph.node if node.op_type == "GridSample")
    assert {kinds[name] for name in (*sampler.input, *sampler.output)} == {onnx.TensorProto.FLOAT}
    outside = [*graph.input, *graph.output]
    assert {v.type.tensor_type.elem_type for v in outside} == {onnx.TensorProto.FLOAT}
    assert next(model.parameters()).dtype == torch.float32  # to_half copied it


def test_a_file_that_differs_too_much_does_not_replace_the_one_before(tmp_path):
    path = tmp_path / "small.onnx"
    path.write_text("as before")
    with pytest.raises(
        ValueError,
        match=r"difference to PyTorch <= 1e-05, got [\d.e+-]+ of the largest value for small",
    ):
        export_small(path, reference=SmallModel(seed=1).eval())
    assert path.read_text() == "as before"
    assert list(tmp_path.iterdir()) == [path]


def test_on_request_a_file_that_differs_is_kept_under_another_name(tmp_path):
    path = tmp_path / "small.onnx"
    with pytest.raises(ValueError, match=r"the file is kept as .*small\.onnx\.failed"):
        export_small(path, reference=SmallModel(seed=1).eval(), keep=True)
    (kept,) = tmp_path.iterdir()
    assert kept.name == "small.onnx.failed"
    onnx.checker.check_model(onnx.load(kept))


@pytest.mark.slow
def test_weights_of_a_kept_file_stay_as_long_as_it_does(tmp_path, monkeypatch):
    monkeypatch.setattr(placing, "MOST_BYTES_IN_ONE_FILE", 0)
    monkeypatch.setattr(placing, "_SMALLEST_EXTERNAL", 64)
    path, kept = tmp_path / "small.onnx", tmp_path / "small.onnx.failed"

    def small(seed: int) -> SmallModel:
        return SmallModel(seed=seed).eval()

    def fail(seed: int) -> str:
        with pytest.raises(ValueError, match="the file is kept as"):
            export_small(path, small(seed), reference=small(9), keep=True)
        (data,) = placing.external_files(kept)
        return data

    first = fail(seed=1)
    second = fail(seed=2)
    assert {file.name for file in tmp_path.iterdir()} == {kept.name, second} != {kept.name, first}
    export_small(path, small(2))  # which has the same weights
    export_small(path, small(3))
    (third,) = placing.external_files(path)
    assert {file.name for file in tmp_path.iterdir()} == {path.name, third, kept.name, second}
    assert fail(seed=3) == third
    assert fail(seed=1) == first
    assert {file.name for file in tmp_path.iterdir()} == {path.name, third, kept.name, first}


@pytest.mark.parametrize("difference", [math.nan, math.inf, 0.5])
def test_a_comparison_of_ones_own_decides_and_the_worst_of_all_counts(difference, tmp_path):
    seen = []

    def compare(expected: list[Tensor], got: list[np.ndarray]) -> Difference:
        seen.append((expected[0].shape, got[0].shape))
        return Difference(0.05 if len(seen) == 1 else difference, "metres", "too far")

    checks = [images(1, 3, 16, 16, seed=1)]
    with pytest.raises(ValueError, match=rf"<= 0.1, got {difference} metres \(too far\)"):
        export_small(tmp_path / "small.onnx", compare=compare, tolerance=0.1, checks=checks)
    assert seen == [((1, 3), (1, 3))] * 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, MemoryError])
def test_an_export_that_is_interrupted_leaves_nothing(error, tmp_path):
    def compare(*_: object) -> Difference:
        raise error

    with pytest.raises(error):
        export_small(tmp_path / "small.onnx", compare=compare)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_weights_beyond_two_gigabytes_go_beside_the_model(tmp_path, monkeypatch):
    monkeypatch.setattr(placing, "MOST_BYTES_IN_ONE_FILE", 0)
    monkeypatch.setattr(placing, "_SMALLEST_EXTERNAL", 64)
    path = tmp_path / "small.onnx"
    report = export_small(path)
    (data,) = placing.external_files(path)
    assert {file.name for file in tmp_path.iterdir()} == {"small.onnx", data}
    assert report.size == sum(file.stat().st_size for file in tmp_path.iterdir())
    first = answer(path, images(1, 3, 16, 16))

    other = SmallModel(seed=1).eval()
    export_small(path, other)
    (new_data,) = placing.external_files(path)
    assert new_data != data
    assert {file.name for file in tmp_path.iterdir()} == {"small.onnx", new_data}
    second = answer(path, images(1, 3, 16, 16))
    assert not np.allclose(first, second)

    monkeypatch.setattr(placing, "MOST_BYTES_IN_ONE_FILE", 2**31)
    export_small(path, other)
    assert list(tmp_path.iterdir()) == [path]
    np.testing.assert_allclose(answer(path, images(1, 3, 16, 16)), second, rtol=0, atol=1e-6)


@pytest.mark.parametrize("beside", [False, True], ids=["model", "weights"])
def test_a_full_disk_is_one_line_and_leaves_what_was_there(beside, tmp_path, monkeypatch):
    if beside:
        monkeypatch.setattr(placing, "MOST_BYTES_IN_ONE_FILE", 0)
        monkeypatch.setattr(placing, "_SMALLEST_EXTERNAL", 64)
    path = tmp_path / "small.onnx"
    path.write_text("as before")
    with pytest.raises(OSError) as caught, files_of_at_most(1_000):
        export_small(path)
    assert str(path) in str(caught.value)
    assert path.read_text() == "as before"
    assert list(tmp_path.iterdir()) == [path]


def test_an_output_that_cannot_be_is_refused_before_any_work(tmp_path):
    (tmp_path / "folder.onnx").mkdir()
    model = nn.Identity().eval()  # that cannot be exported: nothing comes that far
    for path, kind, text in (
        (tmp_path / "no" / "x.onnx", FileNotFoundError, "an existing folder, got .*no"),
        (tmp_path / "folder.onnx", IsADirectoryError, "a file as output, got the folder"),
        (tmp_path / "x.pth", ValueError, "a path that ends in .onnx, got .*x.pth"),
        ("/proc/x.onnx", OSError, "a writable folder, got /proc"),
    ):
        with pytest.raises(kind, match=text):
            export_small(path, model, example={})
    assert [file.name for file in tmp_path.iterdir()] == ["folder.onnx"]


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_package_that_is_missing_is_named_with_the_command_that_installs_it(
    package, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"{package}.*pip install onnx onnxscript onnxruntime"):
        export_small(tmp_path / "small.onnx")


class _AsksItsInput(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum() > 0 else x


class _HasNoTranslation(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.special.bessel_j0(x)


@pytest.mark.parametrize(
    ("model", "changes", "text"),
    [
        (_AsksItsInput(), {}, "expected a model that torch.export can trace, got"),
        (_HasNoTranslation(), {}, "expected operators that ONNX can express, got .*bessel_j0"),
        (SmallModel(), {}, "expected a model in evaluation mode"),
        (SmallModel().eval(), {"reference": SmallModel()}, "expected a model in evaluation mode"),
        (
            SmallModel().eval(),
            {"options": ExportOptions(precision="fp16")},
            "expected a model with weights in half precision",
        ),
        (SmallModel().eval(), {"options": OPEN}, "expected at least 2 along the open axis batch"),
    ],
    ids=["asks", "untranslated", "training", "reference", "not half", "batch of one"],
)
def test_a_model_that_cannot_be_exported_is_one_line(model, changes, text, tmp_path):
    if not isinstance(model, SmallModel):
        model.eval()
    with pytest.raises(ValueError, match=text) as caught:
        export_small(tmp_path / "small.onnx", model, **changes)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_node_that_nothing_here_runs_is_exported_with_a_warning(tmp_path, monkeypatch):
    def missing() -> None:
        raise ImportError("no library. To build it: pip install")

    monkeypatch.setattr("ops_dcnv3.onnxruntime.library_path", missing)
    path = tmp_path / "small.onnx"
    with pytest.warns(UserWarning, match="small.onnx has not been run and compared .* no library"):
        report = export_small(path, options=ExportOptions(operator="node"))
    assert math.isnan(report.max_difference)
    assert str(report).endswith("not compared with PyTorch")
    assert path.is_file()


def test_an_export_says_nothing_by_itself(tmp_path, capfd, recwarn):
    export_small(tmp_path / "small.onnx", options=ExportOptions(opset=19))
    assert capfd.readouterr() == ("", "")
    assert [str(warning.message) for warning in recwarn] == []
