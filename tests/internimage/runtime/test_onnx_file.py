"""An ONNX file's properties are read without the package onnx, and other files are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from internimage.runtime.onnx_file import read_property


def save_model(path: Path, **properties: str) -> Path:
    """Write a model with a weight of 4 MB; return its path."""
    weight = onnx.numpy_helper.from_array(np.ones((1000, 1000), np.float32), "w")
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1000, 1000]) for n in "xy"]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "g", ends[:1], ends[1:], [weight]
    )
    model = helper.make_model(graph, producer_name="test", doc_string="words")
    helper.set_model_props(model, properties)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("value", ["", "text", "ünïcode ✓", "x" * 300_000])
def test_a_property_is_read_as_onnx_wrote_it(tmp_path, value):
    path = save_model(tmp_path / "model.onnx", other="1", internimage=value)
    assert read_property(path, "internimage") == value
    assert read_property(path, "other") == "1"


def test_a_property_that_is_not_there_is_none(tmp_path):
    assert read_property(save_model(tmp_path / "model.onnx"), "internimage") is None


def test_what_is_no_file_of_onnx_is_one_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected an ONNX file, got none at"):
        read_property(tmp_path / "none.onnx", "a")
    with pytest.raises(ValueError, match="got the folder"):
        read_property(tmp_path, "a")
    for content in (b"", b"# A text\n" * 100, b"\x89PNG\r\n\x1a\n" + bytes(100), b"\xff" * 50):
        (tmp_path / "other").write_bytes(content)
        with pytest.raises(ValueError, match=r"expected an ONNX file, got .*other, which is none"):
            read_property(tmp_path / "other", "a")


def test_a_truncated_file_is_one_error(tmp_path):
    whole = save_model(tmp_path / "model.onnx", internimage="x" * 1000).read_bytes()
    for length in (1, 100, len(whole) // 2, len(whole) - 500, len(whole) - 1):
        (tmp_path / "cut.onnx").write_bytes(whole[:length])
        with pytest.raises(ValueError, match="is none or is truncated"):
            read_property(tmp_path / "cut.onnx", "internimage")


def test_bytes_of_any_kind_end_in_a_value_or_in_that_error(tmp_path):
    generator = np.random.default_rng(0)
    head = save_model(tmp_path / "model.onnx", internimage="text").read_bytes()[-64:]
    for _ in range(300):
        content = bytearray(head)
        for place in generator.integers(0, len(content), 4):
            content[place] = generator.integers(0, 256)
        (tmp_path / "broken.onnx").write_bytes(bytes(content))
        try:
            found = read_property(tmp_path / "broken.onnx", "internimage")
        except ValueError as error:
            assert "expected an ONNX file" in str(error)  # noqa: PT017
        else:
            assert found is None or isinstance(found, str)
