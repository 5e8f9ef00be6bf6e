"""classification/export.py: the original's flags and ours."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import internimage
from classification import export
from classification.models import build_metadata
from tests.disks import files_of_at_most

onnx = pytest.importorskip("onnx", reason="onnx is not installed")

NAMES = tuple(f"c{index}" for index in range(7))
RELEASE = "internimage_t_1k_224"


@pytest.fixture
def weights(tmp_path: Path, make_config) -> Path:
    torch.manual_seed(3)
    path = tmp_path / "weights.safetensors"
    model = internimage.create_model("test_t", num_classes=len(NAMES))
    metadata = build_metadata(make_config(), class_names=NAMES)
    internimage.save_checkpoint(model, path, metadata=metadata)
    return path


def facts_of(path: Path) -> dict[str, object]:
    return json.loads(onnx.load(path).metadata_props[0].value)


def call(*arguments: object) -> int:
    return export.main([str(argument) for argument in arguments])


@pytest.mark.slow
def test_a_trained_model_is_exported_with_its_classes_and_its_way_of_preparing_images(
    small_yaml: Path, weights: Path, make_config, capsys
):
    output = weights.with_name("model.onnx")
    assert call("--cfg", small_yaml, "--checkpoint", weights, "--output", output) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.startswith(f"{output}: {small_yaml.stem}, classification, fp32, opset 18")
    assert f"weights: {weights}" in captured.out
    facts = facts_of(output)
    size = make_config().DATA.IMG_SIZE
    assert facts["classes"] == list(NAMES)
    assert facts["input_size"] == [size, size]
    assert facts["resize"] == {
        "mode": "crop", "shorter_side": size, "size": [size, size], "filter": "bicubic"
    }  # fmt: skip


@pytest.mark.slow
def test_the_originals_command_reads_its_folder_and_writes_beside(
    small_yaml: Path, weights: Path, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(export, "CONFIGS", small_yaml.parent)
    monkeypatch.chdir(tmp_path)
    pretrained = tmp_path / "pretrained"
    pretrained.mkdir()
    name = small_yaml.stem
    model = internimage.create_model("test_t", num_classes=len(NAMES))
    torch.save({"model": model.state_dict()}, pretrained / f"{name}.pth")
    assert call("--model_name", name, "--ckpt_dir", "pretrained/", "--onnx") == 0
    assert (tmp_path / f"{name}.onnx").is_file()
    assert facts_of(tmp_path / f"{name}.onnx")["classes"] == []


@pytest.mark.slow
def test_an_engine_is_built_from_the_file_that_was_written(
    small_yaml: Path, weights: Path, monkeypatch
):
    asked = []
    monkeypatch.setattr(export, "build_engine", lambda *arguments: asked.append(arguments))
    output = weights.with_name("model.onnx")
    flags = ("--opts", "TEST.CROP", "False", "--trt")
    assert call("--cfg", small_yaml, "--checkpoint", weights, "--output", output, *flags) == 0
    assert asked == [(output, export.ROOT)]
    assert facts_of(output)["resize"]["mode"] == "exact"  # type: ignore[index]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "expected --model_name NAME or --cfg YAML, got neither"),
        (["--cfg", "YAML", "--model_name", RELEASE], "--model_name NAME or --cfg YAML, got both"),
        (["--model_name", "internimage_t_1k_22"], "did you mean internimage_t_1k_224?"),
        (["--model_name", RELEASE], f"expected {RELEASE}.pth or {RELEASE}.safetensors in"),
        (["--cfg", "YAML"], "expected --checkpoint PATH or --random-weights, got neither"),
        (["--cfg", "YAML", "--ckpt_dir", "x"], "expected --checkpoint PATH beside --cfg"),
        (["--cfg", "YAML", "--checkpoint", "no.pth"], "MODEL.RESUME, got no.pth"),
        (["--cfg", "no.yaml", "--random-weights"], "expected an existing YAML file, got no.yaml"),
        (
            ["--cfg", "YAML", "--checkpoint", "x", "--random-weights"],
            "expected weights from one place, got --checkpoint and --random_weights",
        ),
        (
            ["--cfg", "YAML", "--random-weights", "--use-ema"],
            "expected --use-ema beside weights, got it and --random-weights",
        ),
        (
            ["--cfg", "YAML", "--checkpoint", "x.pth", "--opts", "TEST.CROP"],
            "expected KEY VALUE pairs in --opts, got TEST.CROP\n",
        ),
        (["--cfg", "YAML", "--random-weights", "--opset", "20"], "got 20: opset 20 calls"),
        (["--cfg", "YAML", "--random-weights", "--dynamics", "batch"], "did you mean --dynamic?"),
        (["--cfg", "YAML", "--random-weights", "--output", "no/x.onnx"], "folder, got no"),
        (
            ["--cfg", "YAML", "--random-weights", "--opts", "MODEL.ARCH", "internimage_test_h",
             "--image-size", "40"],
            "expected height and width as multiples of 32",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_a_mistake_is_one_line(arguments, text, small_yaml, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    yaml = str(small_yaml)
    assert call(*(yaml if argument == "YAML" else argument for argument in arguments)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("export.py: error: ")
    assert text in captured.err
    assert captured.err.count("\n") == 1
    assert list(folder.iterdir()) == []


@pytest.mark.slow
def test_a_full_disk_is_one_line(small_yaml: Path, weights: Path, tmp_path, capsys):
    output = tmp_path / "model.onnx"
    before = sorted(tmp_path.iterdir())
    with files_of_at_most(50_000):
        assert call("--cfg", small_yaml, "--checkpoint", weights, "--output", output) == 2
    errors = capsys.readouterr().err
    assert str(output) in errors
    assert errors.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before
