"""What conversions by mmdeploy have in common: the graph, the files, what is said and shown."""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import os
import re
import tempfile
import textwrap
import traceback
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config
from PIL import Image
from torch import Tensor, nn

from internimage.export.engine import build_engine
from internimage.image import save_image
from internimage.integrations.openmmlab.export.deploy_arguments import ConversionRequest
from internimage.integrations.openmmlab.export.deploy_config import DeployConfig
from internimage.integrations.openmmlab.export.mmdeploy_adapter import (
    own_operators,
    torchscript_exporter,
)
from internimage.script import MISTAKES

DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY")  # X11 and Wayland say here where windows go

MOST_CHARACTERS = 500  # of what a library says, in a line

# What tensorrt/build_engine.py says of operators that are not there.
_RTX_REFUSES = re.compile(r"TensorRT for RTX \S+ cannot parse")

_OF_NO_USE = (
    # mmengine at mmdeploy's registries, whose scope is not the model's library.
    "Failed to search registry with scope",
    # mmdeploy at a codebase that is not its own, as that of classifiers, before it takes it.
    "Failed to get codebase",
    "Import mmdeploy.codebase.internimage.deploy failed",
)


@contextlib.contextmanager
def files_for(work_dir: Path) -> Iterator[Path]:
    """A folder for a step of a conversion, whose files go to the work dir if it succeeds.

    Raises:
        OSError: The work dir cannot be written.
        ValueError: A folder there has a file's name; nothing was moved.
    """
    work_dir.mkdir(parents=True, exist_ok=True)
    # Within the work dir, so that the files move without a copy and a full disk is noticed before.
    with tempfile.TemporaryDirectory(prefix=".deploy_", dir=work_dir) as folder:
        yield Path(folder)
        files = sorted(Path(folder).iterdir())
        # All are looked at before the first one moves.
        for path in files:
            if (work_dir / path.name).is_dir():
                raise ValueError(
                    f"expected a file or nothing, got the folder {work_dir / path.name}"
                )
        for path in files:
            os.replace(path, work_dir / path.name)


@contextlib.contextmanager
def after_conversion(file: Path, step: str) -> Iterator[None]:
    """Let a step that follows a conversion end with one line, whatever mmdeploy raises.

    Args:
        file: the converted model, in its place.
        step: what is done, for the line.

    Raises:
        ValueError: The step fails.
    """
    try:
        yield
    except Exception as error:
        reason = _reason(error)
        hint = (
            "; the file takes inputs of IMG's shape alone, one of a deploy config with dynamic "
            "axes any"
            if "invalid dimensions" in reason  # ONNX Runtime's words for another shape
            else ""
        )
        raise ValueError(
            f"{file} is converted and kept, but {step} fails: {reason}{hint}"
        ) from error


@contextlib.contextmanager
def converting(deploy: DeployConfig, level: str) -> Iterator[None]:
    """Let mmdeploy know our operators and say what is of use, within.

    Args:
        deploy: the deploy config.
        level: of what mmdeploy says, a name of :mod:`logging`.
    """
    from mmdeploy.utils import get_root_logger

    logger = get_root_logger()
    before = logger.level
    logger.setLevel(level)
    logger.addFilter(_is_of_use)
    try:
        with own_operators(deploy.operator, deploy.opset), warnings.catch_warnings():
            # What libraries say of calls of one another.
            warnings.filterwarnings(
                "ignore", module=r"(mmcv|mmdeploy|mmdet|mmengine|mmseg|torch)\b"
            )
            yield
    finally:
        logger.removeFilter(_is_of_use)
        logger.setLevel(before)


def write_graph(
    model: nn.Module,
    inputs: Tensor,
    metas: Mapping[str, Any] | None,
    deploy: DeployConfig,
    file: Path,
) -> None:
    """Trace a model on an input and write its graph; mmdeploy changes the model for good.

    Args:
        model: in evaluation mode.
        inputs: (N, 3, H, W).
        metas: the other arguments of its forward, constant.
        deploy: the deploy config.
        file: the ONNX file.

    Raises:
        ValueError: mmdeploy, or the exporter, cannot follow the model.
    """
    from mmdeploy.apis.onnx import export

    onnx = deploy.content.onnx_config
    try:
        with torchscript_exporter():
            export(
                model,
                inputs,
                str(file.with_suffix("")),  # mmdeploy adds .onnx by itself
                backend=deploy.graph.backend_config.type,
                input_metas=metas,
                context_info={"deploy_cfg": copy.deepcopy(deploy.graph)},
                input_names=list(onnx.input_names),
                output_names=list(onnx.output_names),
                opset_version=deploy.opset,
                dynamic_axes=onnx.get("dynamic_axes"),
                keep_initializers_as_inputs=False,
            )
    except (MemoryError, OSError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # each of mmdeploy's rewriters raises what it happens to raise
        raise ValueError(
            f"expected a {type(model).__name__} that mmdeploy can trace, got {_reason(error)}; the "
            "exact export does without mmdeploy"
        ) from error


def load_graph(task: Any, file: Path, *preparation: Any) -> Any:
    """Load a converted model into ONNX Runtime.

    Args:
        task: mmdeploy's task processor.
        file: the ONNX file.
        preparation: what the task's models have before the graph.

    Raises:
        ValueError: It is no model for ONNX Runtime.
    """
    try:
        return task.build_backend_model([str(file)], *preparation)
    except (MemoryError, OSError):
        raise
    except Exception as error:
        raise ValueError(
            f"expected a converted model that ONNX Runtime can load, got {_reason(error)}; the "
            "exact export does without mmdeploy"
        ) from error


def _reason(error: Exception) -> str:
    """What an error of mmdeploy's, or of what it calls, says: a line."""
    text = textwrap.shorten(str(error), MOST_CHARACTERS, placeholder=" ...")
    if isinstance(error, MISTAKES) and text:
        return text
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {frame.name}: {text or frame.line}"


def save_pictures(folder: Path, pictures: Mapping[str, np.ndarray]) -> None:
    """Write pictures (H, W, 3), uint8, blue-green-red, as NAME.jpg."""
    for name, picture in pictures.items():
        save_image(Image.fromarray(picture[..., ::-1]), folder / f"{name}.jpg")


def write_sdk_files(
    folder: Path, deploy: DeployConfig, settings: Config, request: ConversionRequest
) -> None:
    """Write deploy.json, pipeline.json and detail.json, which mmdeploy's SDK reads."""
    from mmdeploy.backend.sdk.export_info import export2SDK

    # Copies: mmdeploy takes pipelines apart while it writes them down. The deploy config as it was
    # read, not the one for the graph: the SDK is to find an engine where one was asked for.
    export2SDK(
        copy.deepcopy(deploy.content),
        copy.deepcopy(settings),
        str(folder),
        pth=request.checkpoint,
        # mmdeploy refuses TensorRT's files on a CPU, though nothing is run.
        device=request.device if deploy.backend == "onnxruntime" else "cuda",
    )
    # mmdeploy writes the file that the settings are from, and a classifier's were made in memory.
    detail = json.loads((folder / "detail.json").read_text())
    detail["codebase"]["config"] = str(request.model_config)
    (folder / "detail.json").write_text(json.dumps(detail, indent=4))


def finish(
    request: ConversionRequest,
    deploy: DeployConfig,
    pictures: Mapping[str, np.ndarray],
    root: Path,
) -> None:
    """Say where the file is, show the pictures, build the engine.

    Args:
        request: What the command line asks for.
        deploy: The deploy config.
        pictures: By their names.
        root: The checkout.

    Raises:
        ValueError: The engine is not built.
    """
    file = request.work_dir / deploy.file_name
    print(f"{file} is written", flush=True)  # before what the builder prints
    if request.show:
        _show(pictures)
    if deploy.backend == "tensorrt":
        _build_engine(file, root, deploy)


def _build_engine(file: Path, root: Path, deploy: DeployConfig) -> None:
    try:
        build_engine(file, root, deploy.engine_arguments)
    except ValueError as error:
        # Only of detectors it is known that another route helps.
        if not (deploy.content.codebase_config.type == "mmdet" and _RTX_REFUSES.search(str(error))):
            raise
        raise ValueError(
            f"{file} is kept, and no engine was built from it: TensorRT for RTX lacks operators of "
            "detectors that mmdeploy converts; TensorRT 10 or 11 has them (pip install tensorrt), "
            "and for RTX there is MODEL_CFG CHECKPOINT --output X.onnx, for R-CNNs with --boxes "
            "loops --image-size H W"
        ) from error


def _show(pictures: Mapping[str, np.ndarray]) -> None:
    if not any(os.environ.get(name) for name in DISPLAYS):
        warnings.warn(
            "--show has no effect: there is no display; the pictures are on disk", stacklevel=2
        )
        return
    for name, picture in pictures.items():
        cv2.imshow(name, picture)
    cv2.waitKey(0)
    cv2.destroyAllWindows()


def _is_of_use(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_OF_NO_USE)
