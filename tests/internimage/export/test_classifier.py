"""Classifiers of every family as ONNX files."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

import internimage
from internimage.export import ExportOptions
from internimage.export.classifier import export_classifier
from internimage.metadata import Preprocessing

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

OPEN = frozenset({"batch", "height", "width"})
CLASSES = 7
DEPTHS = (1, 1, 2, 1)
"""Blocks of the test rows."""


def export(model, path, options, **changes):
    arguments = {"name": "model", "preprocessing": Preprocessing(image_size=32), **changes}
    return export_classifier(model, path, options=options, **arguments)


def build(fill, name, **overrides):
    return fill(internimage.create_model(name, num_classes=CLASSES, **overrides)).eval()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "overrides", "options"),
    [
        ("internimage_test_t", {"remove_center": True}, ExportOptions((40, 56))),
        ("internimage_test_s", {}, ExportOptions(dynamic=frozenset({"batch", "height"}))),
        ("internimage_test_s", {"act_layer": "SiLU", "norm_layer": "BN"}, ExportOptions()),
        ("internimage_test_h", {}, ExportOptions(dynamic=OPEN, precision="fp16")),
        ("internimage_test_g", {}, ExportOptions((64, 32), precision="fp16", batch_size=2)),
        ("internimage_test_t", {"metaformer": True}, ExportOptions(dynamic=frozenset({"batch"}))),
        ("internimage_test_h", {}, ExportOptions(operator="node")),
    ],
    ids=["t", "s open", "batch norm", "h half open", "g half", "metaformer", "h node"],
)
def test_every_family_answers_as_in_pytorch(name, overrides, options, fill, tmp_path):
    path = tmp_path / "model.onnx"
    report = export(build(fill, name, **overrides), path, options)  # compares, or raises
    assert len(report.checks) == (4 if options.opened else 2)
    assert 0 < report.max_difference <= (1e-5 if options.precision == "fp32" else 2e-3)
    inputs = [value.name for value in onnx.load(path).graph.input]
    assert inputs == ["input", "times", "places"] if "metaformer" in overrides else ["input"]


@pytest.mark.slow
def test_the_graph_holds_what_it_needs_and_no_more(exported):
    """What moves data, and where: Note [Transposes] in internimage/export/graph.py."""
    known = Counter(node.op_type for node in onnx.load(exported("classifier")).graph.node)
    layers, downsamplings, stem, head = sum(DEPTHS), len(DEPTHS) - 1, 3, 1
    assert known["Transpose"] == (4 + 2) * layers + 2 * downsamplings + stem + head
    for operator in ("Cast", "Concat", "Expand", "Shape", "Pad", "Gather", "BatchNormalization"):
        assert known[operator] == 0, operator
    node = Counter(node.op_type for node in onnx.load(exported("classifier node")).graph.node)
    assert node["Transpose"] == 2 * layers + 2 * downsamplings + stem + head
    assert node["DCNv3Packed"] == layers


@pytest.mark.slow
def test_the_base_grid_of_a_stage_is_there_once(exported):
    graph = onnx.load(exported("classifier dynamic")).graph
    counted = Counter(node.op_type for node in graph.node)
    assert counted["GridSample"] == sum(DEPTHS)
    assert counted["Range"] == 2 * len(DEPTHS)
    known = onnx.load(exported("classifier")).graph
    sides = [32 // 4, 32 // 8, 32 // 16, 32 // 32]
    grids = [list(v.dims) for v in known.initializer if len(v.dims) == 4 and v.dims[3] == 2]
    assert sorted(grids) == sorted([1, 9, side * side, 2] for side in sides)


def test_onnx_runtime_makes_one_operator_of_gelu(exported, tmp_path):
    settings = onnxruntime.SessionOptions()
    settings.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    settings.log_severity_level = 3
    onnxruntime.InferenceSession(
        exported("classifier"), settings, providers=["CPUExecutionProvider"]
    )
    counted = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    assert counted["Erf"] == 0
    assert counted["Gelu"] + counted["BiasGelu"] == 2 * sum(DEPTHS) + 2  # and stem and head


@pytest.mark.slow
def test_classes_and_preprocessing_travel_with_the_model(fill, tmp_path):
    path = tmp_path / "model.onnx"
    names = [f"class {index}" for index in range(CLASSES)]
    preprocessing = Preprocessing(
        image_size=32, mean=(0.5, 0.25, 0.75), interpolation="bilinear", crop_ratio=0.8
    )
    model = build(fill, "internimage_test_t")
    export(model, path, ExportOptions(), class_names=names, preprocessing=preprocessing)
    facts = json.loads(onnx.load(path).metadata_props[0].value)
    assert facts["task"] == "classification"
    assert facts["classes"] == names
    assert facts["mean"] == [127.5, 63.75, 191.25]
    np.testing.assert_allclose(facts["std"], [58.395, 57.12, 57.375])
    assert facts["resize"] == {
        "mode": "crop", "shorter_side": 40, "size": [32, 32], "filter": "bilinear"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "options", "changes", "text"),
    [
        ("h", ExportOptions((50, 64)), {}, "multiples of 32 for the CLIP-projector head, got 50 x"),
        ("t", ExportOptions(), {"class_names": ("a", "b")}, "expected 7 class names, got 2"),
    ],
    ids=["size", "names"],
)
def test_what_does_not_fit_the_model_is_refused(name, options, changes, text, fill, tmp_path):
    with pytest.raises(ValueError, match=f"export_classifier: .*{text}"):
        export(build(fill, f"internimage_test_{name}"), tmp_path / "x.onnx", options, **changes)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_internimage_t_is_exported_in_half_with_no_more_transposes_than_it_needs(fill, tmp_path):
    model = fill(internimage.create_model("internimage_t")).eval()
    report = export(model, tmp_path / "t.onnx", ExportOptions((96, 96), precision="fp16"))
    assert report.max_difference <= 2e-3
    assert report.transposes == 190
