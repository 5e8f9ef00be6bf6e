"""segmentation/deploy.py: mmdeploy's route and the exact one from the command line."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import onnxruntime
import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from internimage.integrations.openmmlab.export import conversion, deploy, mmdeploy_adapter
from internimage.integrations.openmmlab.prediction.segmentor import build_segmentor
from tests.script_runs import ROOT, run_here
from tests.segmentation.tiny_segmentors import (
    SEGMENTORS,
    make_pixels,
    save_tiny_segmentor,
    tiny_config,
)

pytestmark = pytest.mark.usefixtures("signals_and_warnings_as_before")

CONFIGS = ROOT / "segmentation" / "deploy" / "configs" / "mmseg"

main = partial(deploy.main, "deploy.py", ROOT / "segmentation" / "configs")


class Tiny(NamedTuple):
    """A segmentor on disk, and two images that its pipeline leaves as they are."""

    config: Path
    checkpoint: Path
    photo: Path
    oblong: Path


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    folder = tmp_path_factory.mktemp("segmentor")
    config = tiny_config(folder, SEGMENTORS["upernet"])
    checkpoint = save_tiny_segmentor(config, folder / "tiny.pth", classes=None)
    photo, oblong = folder / "photo.png", folder / "oblong.png"
    cv2.imwrite(str(photo), cv2.resize(make_pixels(), (128, 96)))
    cv2.imwrite(str(oblong), cv2.resize(make_pixels(), (128, 64)))
    return Tiny(config, checkpoint, photo, oblong)


def labels_of(file: Path, tiny: Tiny, image: Path) -> np.ndarray:
    """What the file says of an image, (H, W), through nothing but ONNX Runtime."""
    preprocessor = build_segmentor(tiny.checkpoint, tiny.config).model.data_preprocessor
    pixels = cv2.imread(str(image))[..., ::-1].astype(np.float32)
    mean, std = (value.numpy().reshape(3) for value in (preprocessor.mean, preprocessor.std))
    given = ((pixels - mean) / std).transpose(2, 0, 1)[None]
    session = onnxruntime.InferenceSession(file)
    (labels,) = session.run(None, {"input": np.ascontiguousarray(given)})
    return labels.squeeze()


@pytest.mark.slow
@pytest.mark.parametrize(("leaf", "least"), [("dynamic", 0.9999), ("fp16_static", 0.99)])
def test_mmdeploys_file_gives_pytorchs_labels_at_sizes_that_pooling_does_not_divide(
    leaf: str, least: float, tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    pytest.importorskip("mmdeploy", reason=mmdeploy_adapter.INSTALL)
    name = "-fp16_static" if leaf == "fp16_static" else "_dynamic"
    config = CONFIGS / f"segmentation_onnxruntime{name}.py"
    arguments = [str(path) for path in (config, tiny.config, tiny.checkpoint, tiny.photo)]
    images = [tiny.photo] if "static" in leaf else [tiny.photo, tiny.oblong]
    arguments += ["--work-dir", "out", "--dump-info", "--test-img", *map(str, images)]
    assert run_here(main, *arguments, folder=tmp_path) == 0
    pipeline = json.loads((tmp_path / "out" / "pipeline.json").read_text())["pipeline"]
    assert [task["name"] for task in pipeline["tasks"]][0] == "Preprocess"
    said = capsys.readouterr().out
    segmentor = build_segmentor(tiny.checkpoint, tiny.config)
    for image in images:
        expected = segmentor.segment(cv2.imread(str(image)))
        found = labels_of(tmp_path / "out" / "end2end.onnx", tiny, image)
        assert len(np.unique(expected)) > 1
        assert (found == expected).mean() >= least
        assert f"{image}: " in said


@pytest.mark.slow
def test_what_fails_after_the_conversion_is_one_line_and_leaves_the_model(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    pytest.importorskip("mmdeploy", reason=mmdeploy_adapter.INSTALL)
    steps = [dict(type="LoadImageFromFile"), dict(type="PackSegInputs")]
    dataset = 'type="BaseSegDataset"'
    text = SEGMENTORS["upernet"].replace(dataset, f"{dataset}, pipeline={steps!r}")
    (tmp_path / "model").mkdir()
    config = tiny_config(tmp_path / "model", text)
    dynamic = CONFIGS / "segmentation_onnxruntime_dynamic.py"
    arguments = [str(path) for path in (dynamic, config, tiny.checkpoint, tiny.photo)]
    pictures = {"output_onnxruntime.jpg", "output_pytorch.jpg"}
    flags = ["--work-dir", "info", "--dump-info"]
    assert run_here(main, *arguments, *flags, folder=tmp_path) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert (
        "deploy.py: error: info/end2end.onnx is converted and kept, but --dump-info fails" in said
    )
    assert "expected a test pipeline with Resize as its second step" in said
    assert {path.name for path in (tmp_path / "info").iterdir()} == {"end2end.onnx"} | pictures
    expected = build_segmentor(tiny.checkpoint, config).segment(cv2.imread(str(tiny.photo)))
    found = labels_of(tmp_path / "info" / "end2end.onnx", tiny, tiny.photo)
    assert (found == expected).mean() >= 0.9999


@pytest.mark.slow
def test_the_exact_export_prints_its_difference_and_leaves_one_file(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    arguments = [str(tiny.config), str(tiny.checkpoint), "--output", "x.onnx", "--argmax"]
    assert run_here(main, *arguments, "--image-size", "64", "128", folder=tmp_path) == 0
    said = capsys.readouterr()
    assert said.out.startswith("x.onnx: ") and "difference to PyTorch" in said.out
    assert "images of another ratio are squeezed; --dynamic height width" in said.err
    assert [path.name for path in tmp_path.iterdir()] == ["x.onnx"]
    expected = build_segmentor(tiny.checkpoint, tiny.config).segment(cv2.imread(str(tiny.oblong)))
    assert (labels_of(tmp_path / "x.onnx", tiny, tiny.oblong) == expected).mean() >= 0.9999


@pytest.mark.parametrize(
    ("deploy_config", "expected"),
    [
        ("segmentation_static.py", "expected a deploy config with a backend_config, such as"),
        ("segmentation_onnxruntime_static.py", "expected an existing image file, got x.png"),
    ],
)
def test_a_mistake_ends_with_one_line_and_exit_code_2(
    deploy_config: str,
    expected: str,
    tiny: Tiny,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    files = [str(path) for path in (CONFIGS / deploy_config, tiny.config, tiny.checkpoint)]
    assert run_here(main, *files, "x.png", folder=tmp_path) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert expected in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (
            ["LoadImageFromNDArray", "PackSegInputs"],
            ["LoadImageFromFile", "Resize", "PackSegInputs"],
        ),
        (["LoadImageFromNDArray", "Resize"], ["LoadImageFromFile", "Resize"]),
    ],
)
def test_a_static_size_reaches_pipelines_that_do_not_resize(steps: list[str], expected: list[str]):
    from mmengine.config import Config

    from internimage.integrations.openmmlab.export.conversion import with_pipeline

    pipeline = [dict(type=step) for step in steps]
    found = with_pipeline(Config(), pipeline, (512, 256)).test_pipeline
    assert [step["type"] for step in found] == expected
    if len(expected) > len(steps):
        assert found[1] == dict(type="Resize", scale=(512, 256), keep_ratio=False)


def test_pictures_have_the_colours_of_classes_beyond_256(tiny: Tiny):
    palette = [(0, 0, 0)] * 300 + [(10, 20, 200)]
    segmentor = build_segmentor(tiny.checkpoint, tiny.config)
    segmentor.palette = palette
    sample = SegDataSample(pred_sem_seg=PixelData(data=torch.full((1, 2, 3), 300)))
    pixels = np.zeros((2, 3, 3), np.uint8)
    found = conversion._draw(segmentor, conversion.Tried(Path("x.png"), pixels, sample))
    assert found.tolist() == [[[100, 10, 5]] * 3] * 2  # blue first, half as strong


def test_every_flag_of_the_exact_route_reaches_the_export(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from internimage.export import ExportOptions
    from internimage.integrations.openmmlab.export import segmentor

    seen: dict[str, Any] = {}

    def export(config: Any, checkpoint: str, output: Path, options: Any, **flags: Any) -> str:
        seen.update(checkpoint=checkpoint, output=output, options=options, **flags)
        return "done"

    monkeypatch.setattr(segmentor, "export_segmentor", export)
    words = [str(tiny.config), str(tiny.checkpoint), "--output", "x.onnx", "--keep", "--argmax"]
    words += ["--half", "--opset", "17", "--operator", "node", "--batch-size", "2"]
    words += ["--image-size", "64", "--dynamic", "height", "width"]
    assert run_here(main, *words, folder=tmp_path) == 0
    assert seen == {
        "checkpoint": str(tiny.checkpoint),
        "output": Path("x.onnx"),
        "argmax": True,
        "keep": True,
        "options": ExportOptions(
            image_size=(64, 64),
            dynamic=frozenset({"height", "width"}),
            precision="fp16",
            operator="node",
            opset=17,
            batch_size=2,
        ),
    }
