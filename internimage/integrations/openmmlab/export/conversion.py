"""Conversion by mmdeploy: the original's route, with its files.

The exact export computes what PyTorch computes; mmdeploy replaces some of it: see
``docs/deployment.md``.
"""

from __future__ import annotations

import contextlib
import copy
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.config import Config

from internimage.image import load_image
from internimage.integrations.openmmlab.export.deploy_arguments import ConversionRequest
from internimage.integrations.openmmlab.export.deploy_config import (
    DeployConfig,
    read_deploy_config,
    refuse_deploy_config,
)
from internimage.integrations.openmmlab.export.mmdeploy_adapter import (
    check_opset,
    import_mmdeploy,
    repeat_masks_by_class,
)
from internimage.integrations.openmmlab.export.mmdeploy_differences import (
    LEAST_SCORE,
    describe_difference,
)
from internimage.integrations.openmmlab.export.mmdeploy_files import (
    after_conversion,
    converting,
    files_for,
    finish,
    load_graph,
    save_pictures,
    write_graph,
    write_sdk_files,
)
from internimage.integrations.openmmlab.export.mmdeploy_half import halve_network
from internimage.integrations.openmmlab.export.pooling import replace_pooling
from internimage.integrations.openmmlab.scripts.config_file import check_task, read_config
from internimage.integrations.openmmlab.scripts.config_parts import type_name
from internimage.integrations.openmmlab.scripts.safe_loading import find_file


class Tried(NamedTuple):
    """An image and what a model found in it."""

    path: Path
    pixels: np.ndarray  # (H, W, 3), uint8, blue-green-red
    sample: Any  # of mmdet or mmseg


def convert(request: ConversionRequest, configs: Path) -> None:
    """Convert a model, leave it in the work dir, and try it.

    Args:
        request: What the command line asks for.
        configs: The folder of the task's configs.

    Raises:
        ValueError: A config, the checkpoint or an image does not fit, and nothing is left; or what
            follows the conversion fails, and the model is.
        OSError: A file is missing, or the folder cannot be written.
        ImportError: mmdeploy is not installed.
    """
    # What can be wrong with files is known before mmdeploy is imported and a model is built.
    task = configs.parent.name
    deploy = read_deploy_config(request.deploy_config, task=task)
    with contextlib.redirect_stdout(sys.stderr):  # packages print where they start
        settings = read_config(request.model_config, request.cfg_options, configs=configs)
    refuse_deploy_config(settings, request.model_config)
    check_task(settings, configs)
    find_file(request.checkpoint)
    for image in (request.image, *request.test_images):
        load_image(image)
    request.work_dir.mkdir(parents=True, exist_ok=True)
    with contextlib.redirect_stdout(sys.stderr):
        import_mmdeploy()
        if task == "detection":
            # Behind import_mmdeploy: it imports mmdeploy itself, and registers with it.
            import internimage.integrations.openmmlab.export.mmdeploy_dino  # noqa: F401
    with converting(deploy, request.log_level):
        pictures = _convert_and_try(request, deploy, settings, configs)
    finish(request, deploy, pictures, configs.parent.parent)


def _convert_and_try(
    request: ConversionRequest, deploy: DeployConfig, settings: Config, configs: Path
) -> dict[str, np.ndarray]:
    """Leave the files of a conversion in the work dir; return its pictures by their names."""
    with contextlib.redirect_stdout(sys.stderr):
        predictor = _build_predictor(request, configs)
    settings = with_pipeline(settings, predictor.pipeline, deploy.input_size)
    # Copies: mmdeploy changes the pipelines that it is given.
    task = _task_processor(copy.deepcopy(settings), deploy.graph, request.device)
    model, size = predictor.model, deploy.input_size
    check_opset(model, deploy.operator, deploy.opset)
    # Now, of the whole model: writing the graph takes it apart for good.
    expected = [_try(task, model, path, size) for path in request.test_images]
    with files_for(request.work_dir) as folder:
        made = folder / deploy.file_name
        _write_graph(task, model, request.image, deploy, made)  # which makes another model of it
        # In here, so that a file that cannot be loaded is not kept.
        converted = load_graph(task, made, task.update_data_preprocessor)
    kept = request.work_dir / deploy.file_name
    found = []
    for before in expected:
        with after_conversion(kept, f"the comparison with PyTorch on {before.path}"):
            after = _try(task, converted, before.path, size)
            print(f"{before.path}: {describe_difference(before.sample, after.sample)}")
        found.append(after)
    pictures = {}
    with after_conversion(kept, "drawing"), files_for(request.work_dir) as folder:
        for name, tried in (("output_pytorch", expected), ("output_onnxruntime", found)):
            for one, ending in zip(tried, request.picture_endings, strict=True):
                pictures[name + ending] = predictor.draw(one)
        save_pictures(folder, pictures)
    if request.dump_info:
        with after_conversion(kept, "--dump-info"), files_for(request.work_dir) as folder:
            if configs.parent.name == "segmentation":
                _check_sdk_pipeline(settings.test_pipeline)
                # Where mmseg's own configs have it, and mmdeploy looks for it.
                if "data_preprocessor" not in settings:
                    settings.data_preprocessor = settings.model.data_preprocessor
            write_sdk_files(folder, deploy, settings, request)
    return pictures


def _check_sdk_pipeline(steps: Sequence[Any]) -> None:
    """Refuse a segmentor's test pipeline that mmdeploy's SDK has no words for."""
    names = [type_name(step) for step in steps]
    if names[1:2] != ["Resize"]:
        raise ValueError(
            "expected a test pipeline with Resize as its second step, the only one that "
            f"mmdeploy's SDK knows for segmentors, got {', '.join(map(str, names))}; "
            "onnx_config.input_shape = (width, height) in the deploy config adds one"
        )


class _Predictor(NamedTuple):
    """A model, how its images come in, and how its answers are drawn."""

    model: Any
    pipeline: Sequence[Any]
    draw: Callable[[Tried], np.ndarray]


def _build_predictor(request: ConversionRequest, configs: Path) -> _Predictor:
    """Build the model with its weights; class names may be the checkpoint's or the config's."""
    build: Callable[..., Any]
    if configs.parent.name == "segmentation":
        from internimage.integrations.openmmlab.prediction.segmentor import build_segmentor

        build = build_segmentor
    else:
        from internimage.integrations.openmmlab.prediction.detector import build_detector

        build = build_detector
    predictor = build(
        request.checkpoint,
        request.model_config,
        device=request.device,
        cfg_options=request.cfg_options,
        configs=configs,
    )
    return _Predictor(predictor.model, predictor.pipeline, partial(_draw, predictor))


def _draw(predictor: Any, tried: Tried) -> np.ndarray:
    """Return the picture (H, W, 3), uint8, blue-green-red, of what a model found."""
    if "pred_sem_seg" in tried.sample:
        labels = tried.sample.pred_sem_seg.data.squeeze(0).numpy()
        return predictor.draw(tried.pixels, labels)
    found = tried.sample.pred_instances
    found = found[found.scores >= LEAST_SCORE]  # as `internimage detect` draws
    if "masks" in found:
        found.masks = torch.as_tensor(found.masks) > 0
    return predictor.draw(tried.pixels, found)


def _task_processor(settings: Config, deploy: Config, device: str) -> Any:
    from mmdeploy.apis import build_task_processor

    return build_task_processor(settings, deploy, device)


def _try(task: Any, model: Any, path: Path, size: Sequence[int] | None) -> Tried:
    """Let a model predict an image."""
    # Blue first, as OpenCV reads; a copy, for PyTorch takes no array with negative strides.
    pixels = np.array(load_image(path))[..., ::-1].copy()
    data, _ = task.create_input(pixels, size)
    with torch.no_grad():
        return Tried(path, pixels, model.test_step(data)[0].cpu())


def _write_graph(task: Any, model: Any, image: Path, deploy: DeployConfig, file: Path) -> None:
    """Trace a model on an image and write its graph."""
    pixels = np.array(load_image(image))[..., ::-1].copy()
    data, inputs = task.create_input(
        pixels, deploy.input_size, data_preprocessor=model.data_preprocessor
    )
    # All three change the model in place: PyTorch's answers have been taken before.
    repeat_masks_by_class(model)
    replace_pooling(model)  # mmdeploy's own is exact where the sides divide, and fails below that
    if deploy.is_half:
        halve_network(model)
    metas = {"data_samples": data["data_samples"], "mode": "predict"}
    write_graph(model, inputs[0] if isinstance(inputs, list) else inputs, metas, deploy, file)


def with_pipeline(settings: Config, pipeline: Sequence[Any], size: Sequence[int] | None) -> Config:
    """Return a config as mmdeploy reads it: the test pipeline by this name, from a file.

    Args:
        settings: the model's config.
        pipeline: for images in memory.
        size: (width, height) of a static input, which mmdeploy writes into the step that resizes;
            None for one that may vary.
    """
    settings = copy.deepcopy(settings)
    steps = [dict(step) for step in pipeline]
    if size is not None and not any(type_name(step) == "Resize" for step in steps):
        # Second, where mmdeploy's SDK asserts it to be.
        steps.insert(1, {"type": "Resize", "scale": tuple(size), "keep_ratio": False})
    settings.test_pipeline = [{**steps[0], "type": "LoadImageFromFile"}, *steps[1:]]
    return settings
