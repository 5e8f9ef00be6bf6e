"""Conversion of a classifier by mmdeploy."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from PIL import Image, ImageDraw
from torch import Tensor

from internimage.export.half import to_half
from internimage.image import load_image
from internimage.integrations.openmmlab.export.deploy_arguments import ConversionRequest
from internimage.integrations.openmmlab.export.deploy_config import (
    DeployConfig,
    read_deploy_config,
)
from internimage.integrations.openmmlab.export.mmdeploy_adapter import import_mmdeploy
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
from internimage.metadata import Preprocessing
from internimage.model import InternImage

SDK_MODULE = "mmcls"  # mmpretrain's name of before, which mmdeploy writes for it too
"""Where mmdeploy's SDK keeps the last step of a classifier."""


class Classifier(NamedTuple):
    """What is converted.

    Args:
        model: in evaluation mode, with a head.
        name: what it is called.
        preprocessing: how its images are prepared.
        class_names: one a class, or none at all.
        crop: whether the middle of an image is cut out; else the whole is squeezed.
    """

    model: InternImage
    name: str
    preprocessing: Preprocessing
    class_names: Sequence[str]
    crop: bool


def read_classifier_deploy_config(request: ConversionRequest) -> DeployConfig:
    """Return the deploy config of a request, before a model is built.

    Raises:
        OSError: It, or an image, is not there.
        ValueError: It is none for classifiers, a Python file is in the place of the model's config,
            or an image is none.
    """
    deploy = read_deploy_config(request.deploy_config, task="classification")
    # The settings of classifiers are YAML; a Python file would be read as broken YAML.
    if request.model_config.suffix == ".py":
        raise ValueError(
            f"expected a model's config, a YAML file, got {request.model_config}; the order is "
            "DEPLOY_CFG MODEL_CFG CHECKPOINT IMG"
        )
    for image in (request.image, *request.test_images):
        load_image(image)  # for its error, before the minutes of a conversion
    return deploy


def convert_classifier(
    request: ConversionRequest, deploy: DeployConfig, classifier: Classifier, root: Path
) -> None:
    """Convert a model, leave it in the work dir, and try it.

    Args:
        request: What the command line asks for.
        deploy: Its deploy config.
        classifier: The model.
        root: The checkout.

    Raises:
        ValueError: The input's size is not the model's, and nothing is left; or what follows the
            conversion fails, and the model is.
        OSError: The folder cannot be written.
        ImportError: mmdeploy is not installed.
    """
    deploy.check_side(classifier.preprocessing.image_size, request.deploy_config)
    import_mmdeploy()
    with converting(deploy, request.log_level):
        pictures = _convert_and_try(request, deploy, classifier)
    finish(request, deploy, pictures, root)


def _convert_and_try(
    request: ConversionRequest, deploy: DeployConfig, classifier: Classifier
) -> Mapping[str, np.ndarray]:
    """Leave the files of a conversion in the work dir; return its pictures by their names."""
    from mmdeploy.apis import build_task_processor

    # Behind import_mmdeploy: it imports mmdeploy itself, and registers with it.
    import internimage.integrations.openmmlab.export.classifier_codebase  # noqa: F401

    settings = Config(
        dict(
            default_scope="mmengine",
            model=dict(type=classifier.name),  # mmdeploy looks at every model's type
            preprocessing=dataclasses.asdict(classifier.preprocessing),
            crop=classifier.crop,
        )
    )
    task = build_task_processor(settings, deploy.graph, request.device)
    model = classifier.model.to(request.device)
    # Before the graph is written: mmdeploy changes the model for good.
    expected = [_logits(task, model, path) for path in request.test_images]
    _, inputs = task.create_input([load_image(request.image)])
    with files_for(request.work_dir) as folder:
        made = folder / deploy.file_name
        write_graph(to_half(model) if deploy.is_half else model, inputs, None, deploy, made)
        converted = load_graph(task, made)  # in here: a file that cannot be loaded is not kept
    kept = request.work_dir / deploy.file_name
    pictures = {}
    pairs = zip(request.test_images, expected, strict=True)
    for (path, before), ending in zip(pairs, request.picture_endings, strict=True):
        with after_conversion(kept, f"the comparison with PyTorch on {path}"):
            after = _logits(task, converted, path)
            difference = ((after - before).abs().max() / before.abs().max()).item()
        print(
            f"{path}: {_answer(after, classifier)}, PyTorch says {_answer(before, classifier)}; "
            f"logits differ by {difference:.1e} of the largest"
        )
        for name, logits in (("output_pytorch", before), ("output_onnxruntime", after)):
            pictures[name + ending] = _draw(load_image(path), _answer(logits, classifier))
    with after_conversion(kept, "drawing"), files_for(request.work_dir) as folder:
        save_pictures(folder, pictures)
    if request.dump_info:
        with after_conversion(kept, "--dump-info"), files_for(request.work_dir) as folder:
            write_sdk_files(folder, deploy, settings, request)
            # mmdeploy writes the codebase's name, for which its SDK has no steps.
            file = folder / "pipeline.json"
            pipeline = json.loads(file.read_text())
            pipeline["pipeline"]["tasks"][-1]["module"] = SDK_MODULE
            file.write_text(json.dumps(pipeline, indent=4))
    return pictures


def _logits(task: Any, model: Any, path: Path) -> Tensor:
    """Return the logits (1, classes) of an image, on the CPU."""
    _, inputs = task.create_input([load_image(path)])
    with torch.no_grad():
        return model(inputs).float().cpu()


def _answer(logits: Tensor, classifier: Classifier) -> str:
    score, label = logits[0].softmax(-1).max(-1)
    names = classifier.class_names
    return f"{names[int(label)] if names else f'class {int(label)}'} {score.item():.3f}"


def _draw(image: Image.Image, text: str) -> np.ndarray:
    """Return an image with a line of text, (H, W, 3), uint8, blue-green-red."""
    ImageDraw.Draw(image).text((2, 2), text, fill="white", stroke_width=1, stroke_fill="black")
    return np.array(image)[..., ::-1].copy()
