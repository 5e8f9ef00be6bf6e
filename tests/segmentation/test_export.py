"""Exported segmentors give the label maps of PyTorch's, file for file, by ONNX Runtime alone."""

from __future__ import annotations

import glob
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from internimage.export import ExportOptions, ExportReport
from internimage.integrations.openmmlab.export import segmentor
from internimage.integrations.openmmlab.export.segmentor import export_segmentor
from internimage.integrations.openmmlab.export.segmentor_parts import Scores
from internimage.integrations.openmmlab.prediction.segmentor import build_segmentor
from internimage.runtime import Segmentor, load_model, open_session
from tests.segmentation.tiny_segmentors import (
    NAMES,
    PALETTE,
    SEGMENTORS,
    make_pixels,
    save_tiny_segmentor,
    tiny_config,
)

OPEN = frozenset({"height", "width"})
SIZES = [(90, 120), (120, 90), (31, 200), (57, 43), (20, 20)]

PIPELINE = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(160, 72), keep_ratio=True),
    dict(type="ResizeToMultiple", size_divisor=32),
    dict(type="LoadAnnotations"),
    dict(type="PackSegInputs"),
]
SLIDE = dict(mode="slide", crop_size=(64, 48), stride=(40, 32))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("segmentor")
    save_tiny_segmentor(tiny_config(folder), folder / "model.pth")
    return folder


def config_with(folder: Path, name: str, **model: Any) -> Path:
    config = Config.fromfile(folder / "config.py")
    config.model.update(model)
    config.test_dataloader.dataset.pipeline = PIPELINE
    config.dump(folder / name)
    return folder / name


Export = Callable[..., ExportReport]


@pytest.fixture(scope="module")
def export(folder) -> Export:
    """Function from the name of a config to the report of its file, made once each."""
    reports: dict[str, ExportReport] = {}

    def run(name: str, config: Path, **options: Any) -> ExportReport:
        if name not in reports:
            argmax = options.pop("argmax", False)
            settings = ExportOptions(**options)
            target = folder / f"{name}.onnx"
            reports[name] = export_segmentor(
                config, folder / "model.pth", target, settings, argmax=argmax
            )
        return reports[name]

    return run


@pytest.fixture(scope="module")
def dynamic(folder, export) -> ExportReport:
    config = config_with(folder, "dynamic.py")
    return export("dynamic", config, image_size=(64, 96), dynamic=OPEN | {"batch"})


def picture(height: int, width: int) -> np.ndarray:
    """Red, green, blue (H, W, 3) with large structures."""
    image = Image.fromarray(np.ascontiguousarray(make_pixels()[..., ::-1]))
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))


def share_of_others(model: Segmentor, expected: Any, size: tuple[int, int]) -> float:
    image = picture(*size)
    labels = expected.segment(np.ascontiguousarray(image[..., ::-1]))
    assert len(np.unique(labels)) > 1
    found = model.predict(image)
    assert found.dtype == labels.dtype
    return float((found != labels).mean())


# --------------------------------------------------------------------------------------------------
# the whole path, from an image to its label map


@pytest.mark.slow
def test_label_maps_of_any_size_are_those_of_pytorch(folder, dynamic):
    assert dynamic.max_difference <= 1e-5
    model = load_model(dynamic.path, threads=1)
    assert isinstance(model, Segmentor)
    expected = build_segmentor(folder / "model.pth", folder / "dynamic.py")
    for size in SIZES:
        assert share_of_others(model, expected, size) <= 1e-4, size


@pytest.mark.slow
def test_windows_of_a_fixed_size_give_the_label_maps_of_pytorch(folder, export):
    config = config_with(folder, "slide.py", test_cfg=SLIDE)
    report = export("slide", config)
    model = load_model(report.path, threads=1)
    assert isinstance(model, Segmentor)
    assert model.metadata.input_size == (64, 48)
    assert model.metadata.window == {"size": (64, 48), "stride": (40, 32)}
    expected = build_segmentor(folder / "model.pth", config)
    for size in ((90, 120), (120, 90), (100, 260)):
        assert share_of_others(model, expected, size) <= 1e-4, size
    # Smaller than a window: padded to one, where PyTorch has a smaller one.
    assert model.predict(picture(20, 20)).shape == (20, 20)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(64, 96), (131, 70), (45, 200)])
def test_mask2formers_scores_are_those_of_pytorch_at_any_size(exported, size):
    path = exported("mask2former dynamic")
    segmentor = build_segmentor(path.with_suffix(".pth"), path.parent / "config.py").model
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        expected = Scores(segmentor)(images).numpy()
    run = open_session(path, load_model(path).metadata, threads=1)
    found = run({"input": images.numpy()})["scores"]
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "dynamic", "size"),
    [("upernet", frozenset(), (64, 96)), ("segformer", OPEN, (70, 131))],
)
def test_half_files_give_the_scores_of_pytorch_in_float32(tmp_path, kind, dynamic, size):
    config = tiny_config(tmp_path, SEGMENTORS[kind])
    checkpoint, path = save_tiny_segmentor(config, tmp_path / "model.pth"), tmp_path / "half.onnx"
    options = ExportOptions((64, 96), dynamic=dynamic, precision="fp16")
    export_segmentor(config, checkpoint, path, options)
    kinds = {tensor.data_type for tensor in onnx.load(path).graph.initializer if tensor.dims}
    assert onnx.TensorProto.FLOAT16 in kinds
    images = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(6))
    with torch.inference_mode():
        expected = Scores(build_segmentor(checkpoint, config).model)(images).numpy()
    run = open_session(path, load_model(path).metadata, threads=1)
    found = run({"input": images.numpy()})["scores"]
    assert found.dtype == np.float32
    assert 0 < np.abs(found - expected).max() <= 2e-3 * np.abs(expected).max()


@pytest.mark.slow
def test_the_trained_segmentors_label_maps_are_those_of_pytorch(trained_segmentor, tmp_path):
    run = trained_segmentor
    path = tmp_path / "digits.onnx"
    report = export_segmentor(run.config, run.checkpoint, path, ExportOptions())
    assert report.max_difference <= 1e-5
    model, expected = load_model(path, threads=1), build_segmentor(run.checkpoint)
    assert isinstance(model, Segmentor)
    scenes = [
        np.asarray(Image.open(file).convert("RGB"))
        for file in sorted(glob.glob(f"{run.scenes}/val/*.png"))[:12]
    ]
    four = np.concatenate([np.concatenate(scenes[i : i + 2], axis=1) for i in (0, 2)])
    images = [
        *scenes,
        four,
        four[: len(four) // 2],
        four[:201, :133],
        four[5:102, 17:],
        scenes[0][:40, :50],
    ]
    for image in images:
        labels = expected.segment(np.ascontiguousarray(image[..., ::-1]))
        assert (model.predict(image) != labels).mean() <= 1e-4, image.shape


# --------------------------------------------------------------------------------------------------
# what is in a file


@pytest.mark.slow
def test_the_metadata_are_the_configs_and_the_checkpoints(dynamic):
    metadata = load_model(dynamic.path).metadata
    assert (metadata.task, metadata.model, metadata.precision) == (
        "segmentation",
        "dynamic",
        "fp32",
    )
    assert metadata.classes == NAMES
    assert metadata.palette == tuple(map(tuple, PALETTE))
    np.testing.assert_allclose(metadata.mean, (123.675, 116.28, 103.53), rtol=1e-6)
    np.testing.assert_allclose(metadata.std, (58.395, 57.12, 57.375), rtol=1e-6)
    assert metadata.input_size == (None, None) and metadata.batch is None
    assert metadata.window is None
    assert dict(metadata.resize) == {
        "mode": "keep_ratio",
        "scale": (160, 72),
        "filter": "cv2_bilinear",
        "multiple_of": 32,
        "pad_divisor": None,
        "pad_to": None,
        "pad_value": 0,
    }


@pytest.mark.slow
def test_auxiliary_heads_are_left_out(dynamic):
    names = {tensor.name for tensor in onnx.load(dynamic.path).graph.initializer}
    assert any("decode_head" in name or "head.fpn" in name for name in names)
    assert not any("auxiliary" in name for name in names)


@pytest.mark.slow
def test_a_half_file_with_labels_has_them_from_float32_scores(folder, export):
    config = config_with(folder, "labels.py")
    report = export("labels", config, image_size=(64, 96), precision="fp16", argmax=True)
    graph = onnx.load(report.path).graph
    (output,) = graph.output
    assert output.name == "labels"
    assert output.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    kinds = {tensor.data_type for tensor in graph.initializer if tensor.dims}
    assert onnx.TensorProto.FLOAT16 in kinds
    model = load_model(report.path, threads=1)
    assert (model.metadata.resize["mode"], model.metadata.resize["size"]) == ("exact", (64, 96))
    assert model.predict(picture(128, 192)).shape == (128, 192)


# --------------------------------------------------------------------------------------------------
# what cannot be exported


def refused(folder: Path, config: Path, options: dict[str, Any], **keywords: Any) -> str:
    before = sorted(folder.iterdir())
    with pytest.raises(ValueError) as caught:
        export_segmentor(
            config, folder / "model.pth", folder / "new.onnx", ExportOptions(**options), **keywords
        )
    assert sorted(folder.iterdir()) == before  # nothing half done is left
    return str(caught.value)


def test_a_fixed_size_other_than_the_windows_is_an_error(folder):
    config = config_with(folder, "slide.py", test_cfg=SLIDE)
    message = refused(folder, config, {"image_size": (64, 64)})
    assert "expected image_size = (64, 48), the size of the windows" in message


@pytest.mark.parametrize(
    ("options", "changes", "opened", "words"),
    [
        ({}, {}, OPEN, None),
        ({"image_size": (64, 96)}, {}, set(), "within 160x72: images of another ratio are squeez"),
        ({"dynamic": {"width"}}, {}, {"width"}, "dynamic height width gives PyTorch's answer"),
        ({}, {"test_cfg": SLIDE}, set(), None),
        ({}, {"keep_ratio": False}, set(), None),
        ({"image_size": (64, 96)}, {"keep_ratio": False}, set(), "where the config has 72x160"),
        ({}, {"scale": None}, OPEN, None),
        ({"image_size": (64, 96)}, {"scale": None}, set(), "where PyTorch leaves its size"),
    ],
)
def test_whole_images_of_any_ratio_are_open_unless_asked_otherwise(
    folder, monkeypatch, options, changes, opened, words
):
    seen = []
    monkeypatch.setattr(segmentor, "export_onnx", lambda *_, **given: seen.append(given))
    config = Config.fromfile(
        config_with(folder, "asked.py", **{k: v for k, v in changes.items() if k == "test_cfg"})
    )
    steps = config.test_dataloader.dataset.pipeline
    if "keep_ratio" in changes:
        del steps[2]
        steps[1].keep_ratio = False
    elif "scale" in changes:
        del steps[1:3]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        export_segmentor(
            config, folder / "model.pth", folder / "asked.onnx", ExportOptions(**options)
        )
    said = [str(one.message) for one in caught if "asked.onnx" in str(one.message)]
    assert seen[0]["options"].opened == opened
    assert len(said) == (words is not None)
    assert words is None or words in said[0]
    if changes == {"keep_ratio": False} and not options:
        assert seen[0]["metadata"].resize["size"] == [72, 160]


def test_labels_of_windows_are_an_error(folder):
    config = config_with(folder, "slide.py", test_cfg=SLIDE)
    assert "where they overlap, scores are needed" in refused(folder, config, {}, argmax=True)


def test_a_pipeline_that_the_runner_does_not_know_is_an_error(folder):
    config = Config.fromfile(folder / "config.py")
    config.test_dataloader.dataset.pipeline = [*PIPELINE[:2], dict(type="CLAHE"), *PIPELINE[2:]]
    config.dump(folder / "clahe.py")
    message = refused(folder, folder / "clahe.py", {"dynamic": OPEN})
    assert "which the runner of exported files knows, got CLAHE" in message


RESIZE, MULTIPLE = PIPELINE[1], PIPELINE[2]


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([MULTIPLE, RESIZE], "one Resize, then one ResizeToMultiple at most, .*got Resize behind"),
        ([RESIZE, RESIZE], "got Resize behind Resize"),
        ([RESIZE, MULTIPLE, MULTIPLE], "ResizeToMultiple behind Resize, ResizeToMultiple"),
        (
            [RESIZE, dict(type="ResizeToMultiple", size_divisor=(32, 64))],
            r"one number for both sides, .*got size_divisor = \(32, 64\)",
        ),
        (
            [dict(RESIZE, keep_ratio=False), MULTIPLE],
            "size_divisor = 32 behind one to 160x72 with keep_ratio = False",
        ),
    ],
)
def test_steps_that_the_runner_would_do_in_another_way_are_an_error(folder, steps, expected):
    config = Config.fromfile(folder / "config.py")
    config.test_dataloader.dataset.pipeline = [PIPELINE[0], *steps, *PIPELINE[3:]]
    config.dump(folder / "steps.py")
    assert re.search(expected, refused(folder, folder / "steps.py", {"dynamic": OPEN}))


@pytest.mark.parametrize("as_config", [False, True])
def test_weights_of_another_kind_of_model_name_the_command_that_takes_them(
    folder, tmp_path, as_config
):
    weights = tmp_path / "detector.pth"
    torch.save({"state_dict": {"roi_head.bbox_head.fc_cls.weight": torch.zeros(1)}}, weights)
    path = folder / "config.py"
    with pytest.raises(ValueError, match="got that of a detector .*`detection/deploy.py` takes it"):
        export_segmentor(
            Config.fromfile(path) if as_config else path,
            weights,
            tmp_path / "x.onnx",
            ExportOptions(),
        )


def test_weights_of_another_model_are_an_error(folder):
    config = Config.fromfile(folder / "config.py")
    config.model.decode_head.channels = 24
    config.dump(folder / "wide.py")
    assert "decode_head" in refused(folder, folder / "wide.py", {})


def test_a_head_that_cannot_be_traced_names_mmdeploys_route(folder, tmp_path):
    config = Config.fromfile(folder / "config.py")
    del config.model["auxiliary_head"]
    # Which branch is taken depends on the numbers.
    config.model.decode_head = dict(
        type="PointHead", in_channels=[128], in_index=[3], channels=8, num_classes=5, num_fcs=1
    ) | dict(norm_cfg=dict(type="BN"), align_corners=False)
    with pytest.raises(ValueError, match="segmentation/deploy.py DEPLOY_CFG MODEL_CFG CHECKPOINT"):
        export_segmentor(config, None, tmp_path / "x.onnx", ExportOptions(image_size=(64, 64)))
    assert not list(tmp_path.iterdir())


def test_a_path_that_cannot_be_written_is_said_before_any_work(folder):
    with pytest.raises(FileNotFoundError, match="expected an existing folder"):
        export_segmentor(
            "no config", None, folder / "none" / "x.onnx", ExportOptions(image_size=(64, 64))
        )
    with pytest.raises(ValueError, match=r"expected a path that ends in \.onnx"):
        export_segmentor("no config", None, folder / "x.engine", ExportOptions())


def test_a_missing_checkpoint_or_config_is_an_error(folder):
    for config, checkpoint in ((folder / "config.py", "none.pth"), ("none.py", None)):
        with pytest.raises(FileNotFoundError, match="expected"):
            export_segmentor(config, checkpoint, folder / "x.onnx", ExportOptions())
