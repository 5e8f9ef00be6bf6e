"""``internimage export``, as a user types it."""

from __future__ import annotations

import json
import signal
import sys

import numpy as np
import pytest
from PIL import Image

import internimage
from internimage import cli
from tests.disks import files_of_at_most
from tests.script_runs import signals_and_warnings_as_before  # noqa: F401

pytest.importorskip("onnxscript", reason="onnxscript is not installed")

pytestmark = pytest.mark.usefixtures("signals_and_warnings_as_before")

NAMES = ("ant", "bee", "cat", "dog", "eel", "fox", "gnu")
SIZE = "internimage_test_t"


@pytest.fixture(scope="module")
def folder(filled_model, tmp_path_factory):
    """A folder with weights and an image."""
    folder = tmp_path_factory.mktemp("cli_export")
    metadata = internimage.CheckpointMetadata(
        model_name=SIZE,
        num_classes=len(NAMES),
        class_names=NAMES,
        preprocessing=internimage.Preprocessing(image_size=40, crop_ratio=0.9),
    )
    internimage.save_checkpoint(filled_model(SIZE), folder / "model.safetensors", metadata=metadata)
    noise = np.random.default_rng(0).integers(0, 255, (70, 50, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "photo.png")
    return folder


def call(folder, monkeypatch, capsys, *arguments: str) -> tuple[int, str, str]:
    monkeypatch.chdir(folder)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    code = cli.main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.slow
def test_an_exported_checkpoint_answers_for_an_image_as_before(
    folder, tmp_path, monkeypatch, capsys
):
    path = str(tmp_path / "model.onnx")
    code, printed, errors = call(
        folder, monkeypatch, capsys,
        "export", "--checkpoint", "model.safetensors", "--output", path, "--dynamic", "batch",
    )  # fmt: skip
    assert (code, errors) == (0, "")
    assert printed.startswith(f"{path}: {SIZE}, classification, fp32, opset 18")
    assert printed.count("difference to PyTorch") == 4
    assert "weights: model.safetensors" in printed

    asked = ("--json", "photo.png")
    _, before, _ = call(
        folder, monkeypatch, capsys, "predict", "--checkpoint", "model.safetensors", *asked
    )
    _, after, _ = call(folder, monkeypatch, capsys, "run", path, *asked)
    expected, found = json.loads(before)["images"][0], json.loads(after)["answers"][0]
    assert [label["name"] for label in found["labels"]] == [
        label["name"] for label in expected["labels"]
    ]
    scores = [[label["score"] for label in answer["labels"]] for answer in (found, expected)]
    np.testing.assert_allclose(scores[0], scores[1], rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([SIZE, "--checkpoint", "no.pth"], "expected an existing file, got no.pth"),
        ([SIZE], "expected weights for internimage_test_t, got none"),
        ([SIZE], "a released name as the model (internimage list)"),
        (["internimage_t_1k_224"], "internimage_t_1k_224"),
        (["nothing", "--random-weights"], "expected a known model name, got 'nothing'"),
        ([SIZE, "--random-weights", "--opset", "20"], "got 20: opset 20 calls GridSample's"),
        ([SIZE, "--random-weights", "--opset", "7"], "expected --opset in (17, 18, 19), got 7"),
        (
            [SIZE, "--random-weights", "--image-size", "0"],
            "expected --image-size's height from 1 to 8192, got 0",
        ),
        ([SIZE, "--random-weights", "--image-size", "1", "2", "3"], "H or H W, got 1 2 3"),
        ([SIZE, "--random-weights", "--batch-size", "0"], "expected --batch-size >= 1, got 0"),
        ([SIZE, "--random-weights", "--dynamic", "depth"], "expected --dynamic = axes of"),
        ([SIZE, "--random-weights", "--operator", "magic"], "expected --operator in {grid"),
        ([SIZE, "--random-weights", "--tolerance", "0"], "expected tolerance > 0, got 0"),
        (["internimage_test_h", "--random-weights", "--image-size", "7"], "multiples of 32"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line(arguments, text, folder, tmp_path, monkeypatch, capsys):
    code, printed, errors = call(
        folder, monkeypatch, capsys, "export", *arguments, "--output", str(tmp_path / "x.onnx")
    )
    assert (code, printed) == (2, "")
    assert errors.startswith("internimage export: error: ")
    assert text in errors
    assert errors.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("start", [("export", SIZE, "--output", "x.onnx"), ("predict", "x.png")])
def test_an_unknown_flag_is_one_line_with_the_nearest(start, folder, monkeypatch, capsys):
    code, printed, errors = call(folder, monkeypatch, capsys, *start, "--imagesize", "32")
    assert (code, printed) == (2, "")
    line = "expected known flags, got --imagesize 32; did you mean --image-size?"
    assert errors == f"internimage {start[0]}: {line}\n"


@pytest.mark.parametrize(
    ("output", "text"),
    [
        ("no/x.onnx", "an existing folder, got no"),
        (".", "a path that ends in .onnx"),
        ("/proc/x.onnx", "expected a writable folder, got /proc"),
    ],
)
def test_an_output_that_cannot_be_is_one_line(output, text, folder, monkeypatch, capsys):
    before = sorted(folder.iterdir())
    code, printed, errors = call(
        folder, monkeypatch, capsys, "export", SIZE, "--random-weights", "--output", output
    )
    assert (code, printed, errors.count("\n")) == (2, "", 1)
    assert text in errors
    assert sorted(folder.iterdir()) == before


def test_a_missing_package_is_named_with_the_command_for_it(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    output = str(tmp_path / "x.onnx")
    code, _, errors = call(
        folder, monkeypatch, capsys, "export", SIZE, "--random-weights", "--output", output
    )
    assert (code, errors.count("\n")) == (2, 1)
    assert "pip install onnx onnxscript onnxruntime" in errors


@pytest.mark.slow
def test_a_full_disk_is_one_line(folder, tmp_path, monkeypatch, capsys):
    output = tmp_path / "x.onnx"
    with files_of_at_most(50_000):
        code, printed, errors = call(
            folder, monkeypatch, capsys,
            "export", "--checkpoint", "model.safetensors", "--output", str(output),
        )  # fmt: skip
    assert (code, printed, errors.count("\n")) == (2, "", 1)
    assert "File too large" in errors
    assert str(output) in errors
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "number"),
    [
        ("torch.onnx._internal.exporter._building.OpRecorder.eval", signal.SIGINT),
        ("onnx.shape_inference.infer_node_outputs", signal.SIGTERM),
        ("onnx_ir.passes.common.RemoveUnusedNodesPass.call", signal.SIGINT),
        ("internimage.export.writing.lint", signal.SIGTERM),
    ],
)
def test_an_export_that_is_stopped_leaves_nothing(
    place, number, folder, tmp_path, monkeypatch, capsys
):
    def stop(*_: object, **__: object) -> None:
        signal.raise_signal(number)

    monkeypatch.setattr(place, stop)
    code, printed, errors = call(
        folder, monkeypatch, capsys,
        "export", "--checkpoint", "model.safetensors", "--output", str(tmp_path / "x.onnx"),
    )  # fmt: skip
    assert (code, printed) == (128 + number, "")
    assert errors == f"internimage export: stopped by {number.name}\n"
    assert list(tmp_path.iterdir()) == []
