"""classification/deploy.py: conversion by mmdeploy, compared in ONNX Runtime."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

import internimage
from classification.models import build_metadata

pytest.importorskip("mmdeploy", reason="`make setup-all`")

from mmengine.config import Config

from classification.data.transforms import build_finish_test, build_test_transform
from classification.deploy import main
from internimage.integrations.openmmlab.export import classifier_conversion
from internimage.integrations.openmmlab.export.mmdeploy_adapter import import_mmdeploy

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "classification" / "deploy" / "configs"
NAMES = ("ant", "bee", "cat")


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def tiny_model() -> internimage.InternImage:
    """Always the same one."""
    torch.manual_seed(3)
    return internimage.create_model("test_t", num_classes=len(NAMES)).eval()


@pytest.fixture
def weights(tmp_path: Path, make_config) -> Path:
    path = tmp_path / "weights.safetensors"
    metadata = build_metadata(make_config("DATA.IMG_SIZE", 64), class_names=NAMES)
    internimage.save_checkpoint(tiny_model(), path, metadata=metadata)
    return path


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    pixels = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def call(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("leaf", "most"), [("onnxruntime_dynamic", 1e-5), ("onnxruntime-fp16_static", 2e-3)]
)
def test_mmdeploys_file_gives_pytorchs_logits(
    leaf: str, most: float, small_yaml: Path, weights: Path, photo: Path, tmp_path: Path, capsys
):
    config, folder = CONFIGS / f"classification_{leaf}.py", tmp_path / "out"
    flags = ["--work-dir", folder, "--cfg-options", "DATA.IMG_SIZE=64", "--dump-info"]
    assert call(config, small_yaml, weights, photo, *flags) == 0
    said = capsys.readouterr()
    assert f"{photo}: " in said.out
    assert "codebase" not in said.out + said.err
    assert {path.name for path in folder.iterdir()} == {
        *("end2end.onnx", "deploy.json", "pipeline.json", "detail.json"),
        *("output_onnxruntime.jpg", "output_pytorch.jpg"),
    }
    tasks = json.loads((folder / "pipeline.json").read_text())["pipeline"]["tasks"]
    assert [task["module"] for task in tasks] == ["Transform", "Net", "mmcls"]
    session = onnxruntime.InferenceSession(folder / "end2end.onnx")
    model = tiny_model()
    generator = torch.Generator().manual_seed(0)
    shapes = [(1, 3, 64, 64)] + ([(3, 3, 72, 96)] if "dynamic" in leaf else [])
    for shape in shapes:
        inputs = torch.randn(shape, generator=generator)
        (found,) = session.run(None, {"input": inputs.numpy()})
        with torch.no_grad():
            expected = model(inputs).numpy()
        assert abs(found - expected).max() <= most * abs(expected).max()


@pytest.mark.parametrize("crop", [True, False])
def test_images_are_prepared_as_the_evaluation_prepares_them(
    crop: bool, make_config, small_yaml: Path, weights: Path, photo: Path, tmp_path, monkeypatch
):
    seen = {}

    def stop(_model: object, inputs: torch.Tensor, *_: object) -> None:
        seen["inputs"] = inputs
        raise ValueError("seen")

    monkeypatch.setattr(classifier_conversion, "write_graph", stop)
    config = CONFIGS / "classification_onnxruntime_dynamic.py"
    settings = [f"TEST.CROP={crop}", "DATA.IMG_SIZE=32"]
    flags = ["--work-dir", tmp_path / "out", "--cfg-options", *settings]
    assert call(config, small_yaml, weights, photo, *flags) == 2
    evaluated = make_config("TEST.CROP", crop, "DATA.IMG_SIZE", 32)
    with Image.open(photo) as image:
        pixels = build_test_transform(evaluated)(image)[None].permute(0, 3, 1, 2)
    torch.testing.assert_close(seen["inputs"], build_finish_test(evaluated)(pixels))


@pytest.mark.parametrize(
    ("crop", "resize"),
    [
        (True, {"size": (12, -1), "keep_ratio": True}),
        (False, {"size": (9, 9), "keep_ratio": False}),
    ],
)
def test_the_sdk_is_told_whether_the_middle_is_cut_out(crop: bool, resize: dict[str, object]):
    import_mmdeploy()
    from internimage.integrations.openmmlab.export.classifier_codebase import Classification

    settings = Config({"preprocessing": {"image_size": 9, "crop_ratio": 0.75}, "crop": crop})
    deploy_config = Config({"codebase_config": {"type": "internimage", "task": "Classification"}})
    _, first, second, *_ = Classification(settings, deploy_config, "cpu").get_preprocess()
    assert {key: first[key] for key in resize} == resize
    assert (second["type"] == "CenterCrop") == crop


@pytest.mark.parametrize(
    ("leaf", "flags", "expected"),
    [
        ("onnxruntime_static", ["--output", "x.onnx"], "got 4 files"),
        ("tensorrt_static-224x224", [], "for the model's 16 x 16 pixels, got .*(224, 224)"),
        ("tensorrt_dynamic-224x224-224x224", [], "the model's 16 x 16 pixels, got .*from 224x224"),
        ("static", [], "expected a deploy config with a backend_config"),
    ],
)
def test_a_mistake_ends_with_one_line_and_exit_code_2(
    leaf: str, flags: list[str], expected: str, small_yaml: Path, weights: Path, photo: Path, capsys
):
    config = CONFIGS / f"classification_{leaf}.py"
    assert call(config, small_yaml, weights, photo, *flags) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("deploy.py: error: ")
    assert expected.partition(".*")[0] in line
    assert expected.rpartition(".*")[2] in line


def test_a_deploy_config_in_the_place_of_the_models_is_told_the_order(photo: Path, capsys):
    config = CONFIGS / "classification_onnxruntime_static.py"
    assert call(config, config, "x.pth", photo) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "expected a model's config, a YAML file, got " in line
    assert "the order is DEPLOY_CFG MODEL_CFG CHECKPOINT IMG" in line
