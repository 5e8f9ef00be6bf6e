"""Files in ONNX Runtime and OpenVINO; what is missing or does not fit is one error."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from internimage.runtime import load_model, open_session
from internimage.runtime.sessions import BACKENDS, line_of
from tests.internimage.runtime.runner_metadata import make_metadata
from tests.internimage.runtime.tiny_files import save_classifier, save_file, save_segmentor

IMAGE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_file_gives_the_same_in_every_runtime(tmp_path, backend):
    path = save_segmentor(tmp_path / "model.onnx")
    found = load_model(path, backend=backend, threads=1).predict(IMAGE)
    assert np.array_equal(found, IMAGE.argmax(-1))


@pytest.mark.parametrize("backend", BACKENDS)
def test_inputs_that_nobody_gives_are_zeros_of_the_images_number(tmp_path, backend):
    times = helper.make_tensor_value_info("times", TensorProto.FLOAT, ["n", 3])
    nodes = [
        helper.make_node("ReduceMean", ["input", "sides"], ["means"], keepdims=0),
        helper.make_node("Add", ["means", "times"], ["logits"]),
    ]
    resize = dict(mode="exact", size=[8, 8], filter="bilinear")
    path = save_file(
        tmp_path / "model.onnx", nodes, ["logits"], {"sides": np.array([2, 3])},
        inputs=[times], task="classification", resize=resize, batch=2,
    )  # fmt: skip
    best = load_model(path, backend=backend).predict(np.full((9, 9, 3), (9, 99, 9), np.uint8))
    assert best[0].index == 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_runtime_that_is_missing_is_named_with_the_command_that_installs_it(
    tmp_path, monkeypatch, backend
):
    path = save_classifier(tmp_path / "model.onnx")
    monkeypatch.setitem(sys.modules, backend, None)
    with pytest.raises(ImportError, match=f"expected {backend}, .*`pip install {backend}`"):
        load_model(path, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_broken_graph_is_one_error(tmp_path, backend):
    node = helper.make_node("NoSuchOperator", ["input"], ["scores"])
    path = save_file(tmp_path / "model.onnx", [node], ["scores"], task="segmentation")
    with pytest.raises(ValueError, match=r"expected a model that .* can load, got .*model.onnx"):
        load_model(path, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_input_that_the_graph_does_not_take_is_one_error(tmp_path, backend, capfd):
    path = save_segmentor(tmp_path / "model.onnx")
    run = open_session(path, make_metadata(), backend=backend)
    with pytest.raises(ValueError, match=r"takes, got input \(1, 2, 4, 4\)"):
        run({"input": np.zeros((1, 2, 4, 4), np.float32)})
    assert capfd.readouterr() == ("", "")  # the runtime says nothing of its own


def test_an_unknown_backend_is_an_error(tmp_path):
    path = save_segmentor(tmp_path / "model.onnx")
    with pytest.raises(ValueError, match=r"backend in \{onnxruntime, openvino\}, got 'tflite'"):
        load_model(path, backend="tflite")  # type: ignore[arg-type]


def save_node_file(folder: Path) -> Path:
    node = helper.make_node("DCNv3Packed", ["input", "input"], ["scores"], domain="dcnv3")
    return save_file(folder / "node.onnx", [node], ["scores"], task="segmentation", operator="node")


def test_a_file_with_the_operator_as_a_node_asks_for_its_library(tmp_path, monkeypatch):
    path = save_node_file(tmp_path)
    monkeypatch.setattr("internimage.runtime.sessions._installed_library", lambda: None)
    with pytest.raises(ValueError, match="give --library FILE, install ops_dcnv3"):
        load_model(path)


def test_a_library_that_is_none_is_an_error(tmp_path):
    path = save_node_file(tmp_path)
    with pytest.raises(FileNotFoundError, match="expected a library, got no file at"):
        load_model(path, library=tmp_path / "none.so")
    (tmp_path / "text.so").write_text("no library")
    with pytest.raises(ValueError, match=r"a library .* ONNX Runtime can load, got .*text\.so"):
        load_model(path, library=tmp_path / "text.so")


def test_a_library_in_the_current_folder_is_found_by_its_bare_name(tmp_path, monkeypatch):
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    asked: list[str] = []
    monkeypatch.setattr(
        onnxruntime.SessionOptions,
        "register_custom_ops_library",
        lambda _, path: asked.append(path),
    )
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lib.so").write_text("of the operator")
    with pytest.raises(ValueError, match="expected a model that ONNX Runtime can load"):
        load_model(save_node_file(tmp_path), library="lib.so")
    assert asked == [str(tmp_path / "lib.so")]


@pytest.mark.parametrize("threads", [0, -1, 100_000])
def test_threads_that_no_machine_has_are_refused(tmp_path, threads):
    path = save_segmentor(tmp_path / "model.onnx")
    with pytest.raises(ValueError, match=rf"expected threads from 1 to \d+, got {threads}"):
        load_model(path, threads=threads)


def test_of_a_long_error_the_reason_is_kept():
    error = RuntimeError("in a function of many templates " * 50 + "\nweights.data is missing")
    line = line_of(error)
    assert line.startswith("in a function") and line.endswith("weights.data is missing")
    assert len(line) < 420 and "\n" not in line
    assert line_of(RuntimeError("short")) == "short"
    assert line_of(MemoryError()) == "MemoryError"


def test_openvino_has_no_library_of_the_operator(tmp_path):
    path = save_node_file(tmp_path)
    (tmp_path / "lib.so").write_text("of the operator")
    for library in (None, tmp_path / "lib.so"):
        with pytest.raises(ValueError, match="with --operator grid_sample for OpenVINO") as caught:
            load_model(path, backend="openvino", library=library)
        assert str(caught.value).endswith("node.onnx, which holds it as a node")


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_answer_does_not_change_with_the_next_run(tmp_path, backend):
    run = open_session(save_segmentor(tmp_path / "m.onnx"), make_metadata(), backend=backend)
    ones = np.ones((1, 3, 8, 8), np.float32)
    first = run({"input": ones})["scores"]
    run({"input": 2 * ones})
    assert np.array_equal(first, ones)
