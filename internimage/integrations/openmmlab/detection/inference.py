"""A detector ready to predict: mmdet's model and pipeline, around images that are in memory.

Shape legend: H W image size in pixels, n instances found.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import mmcv.ops  # noqa: F401  mmdet would notice only later that the operators are missing
import numpy as np
import torch
from mmcv.transforms import Compose
from mmdet.apis import init_detector
from mmdet.registry import DATASETS, MODELS
from mmdet.structures.mask import encode_mask_results
from mmdet.utils import get_test_pipeline_cfg
from mmdet.visualization.palette import get_palette
from mmengine.config import Config, ConfigDict
from mmengine.dataset import pseudo_collate
from mmengine.structures import InstanceData
from torch import nn

from internimage.integrations.openmmlab.detection.drawing import Painter, Palette, PaletteName
from internimage.integrations.openmmlab.detection.saved_config import read_saved_config
from internimage.integrations.openmmlab.scripts.arguments import KeyValues
from internimage.integrations.openmmlab.scripts.checkpoints import (
    class_names,
    load_all_weights,
    read_checkpoint,
)
from internimage.integrations.openmmlab.scripts.config_file import read_config
from internimage.script import Parser

LOADERS = ("LoadImageFromFile", "LoadImageFromNDArray", "LoadImageFromWebcam", "InferencerLoader")
COCO_COLOURS = 80


@dataclasses.dataclass(frozen=True, kw_only=True)
class Detection:
    """One object found.

    Args:
        bbox: left, top, right, bottom in pixels of the upright image.
        label: the class, from 0.
        class_name: its name, None where names are unknown.
        score: 0-1.
        mask: COCO's compressed run-length code, ``{"size": [H, W], "counts": text}``; None from a
            detector without masks.
    """

    bbox: tuple[float, float, float, float]
    label: int
    class_name: str | None
    score: float
    mask: dict[str, Any] | None


class Detector:
    """Images in, detections and pictures out.

    Args:
        model: a detector of mmdet in evaluation mode, or the same behind test-time augmentation.
        pipeline: the transforms of its test set, of which the one that reads a file is replaced.
        class_names: one a class, or none at all.
        palette: a name that mmdet knows, or one colour a class.
        checkpoint: where the weights are from.
        config: where the config is from.
    """

    def __init__(
        self,
        model: nn.Module,
        pipeline: Sequence[Mapping[str, Any]],
        *,
        class_names: Sequence[str],
        palette: Palette,
        checkpoint: str = "",
        config: str = "",
    ) -> None:
        self.model = model
        self.class_names = tuple(class_names)
        self.checkpoint = checkpoint
        self.config = config
        self._predict: Any = model.test_step
        self._pipeline = Compose(_pipeline_in_memory(pipeline))
        self._painter = Painter(self.class_names, palette)

    @torch.inference_mode()
    def detect(
        self, image: np.ndarray, *, score_threshold: float = 0.3, topk: int | None = None
    ) -> InstanceData:
        """Find the objects in one image.

        Args:
            image: (H, W, 3), uint8, blue-green-red.
            score_threshold: leave out what scores less, 0-1.
            topk: of the rest, leave out all but so many.

        Returns:
            ``bboxes`` (n, 4) in pixels, ``labels`` (n,), ``scores`` (n,), of a detector with masks
            ``masks`` (n, H, W); on the CPU, best first.

        Raises:
            ValueError: the image is of no use to the model, or an answer is not finite.
        """
        height, width = image.shape[:2]
        try:
            batch = pseudo_collate([self._pipeline({"img": image, "img_id": 0})])
            found = self._predict(batch)[0].pred_instances.cpu()
        except (cv2.error, torch.OutOfMemoryError) as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(
                f"Detector.detect: expected an image that the pipeline can resize and the memory "
                f"can hold, got {width}x{height} pixels ({reason})"
            ) from error
        if not (found.scores.isfinite().all() and found.bboxes.isfinite().all()):
            raise ValueError(
                "Detector.detect: expected finite boxes and scores, got NaN or infinity: the "
                "weights hold it, or overflow in their dtype"
            )
        found = found[found.scores >= score_threshold]
        return found[found.scores.argsort(descending=True, stable=True)[:topk]]

    def describe(self, instances: InstanceData) -> list[Detection]:
        """Return what :meth:`detect` found as plain values."""
        masks: Sequence[Any] = [None] * len(instances)
        if "masks" in instances:
            masks = encode_mask_results(instances.masks.numpy())
        rows = zip(
            instances.bboxes.tolist(),
            instances.labels.tolist(),
            instances.scores.tolist(),
            masks,
            strict=True,
        )
        return [
            Detection(
                bbox=tuple(bbox),
                label=label,
                class_name=self.class_names[label] if self.class_names else None,
                score=score,
                mask=None
                if mask is None
                else {"size": list(mask["size"]), "counts": mask["counts"].decode("ascii")},
            )
            for bbox, label, score, mask in rows
        ]

    def draw(self, image: np.ndarray, instances: InstanceData) -> np.ndarray:
        """Return the picture (H, W, 3), uint8, blue-green-red, with the instances drawn on it."""
        return self._painter.draw(image, instances)


def build_detector(
    checkpoint: str | Path,
    config: str | Path | None = None,
    *,
    device: str = "cpu",
    palette: PaletteName | None = None,
    tta: bool = False,
    cfg_options: Mapping[str, Any] | None = None,
    configs: Path | None = None,
) -> Detector:
    """Put a detector, its weights, its pipeline and its class names together.

    Args:
        checkpoint: a file, an address or the name of a released detector; those of mmdet 2.x are
            renamed as they load.
        config: file with the config. None takes the one that mmengine writes into checkpoints.
        device: where the model runs.
        palette: colours; None takes the checkpoint's, else COCO's while they suffice, else random
            ones.
        tta: predict with the config's test-time augmentation.
        cfg_options: settings that override those of ``config``, by their dotted names.

        configs: folder in which today's config is looked for when ``config`` is one of mmdet 2.x,
            for the error.

    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: something is missing or does not fit; the message says what to give.
    """
    saved = read_checkpoint(checkpoint)
    meta = saved.get("meta")
    meta = meta if isinstance(meta, Mapping) else {}
    if config is not None:
        settings = read_config(config, cfg_options, configs=configs)
    else:
        settings = _saved_settings(meta, checkpoint, cfg_options or {})
    origin = str(config) if config is not None else f"the config in {checkpoint}"
    pipeline = _test_pipeline(settings, origin, tta=tta)
    model = _build_model(settings, origin, device)
    load_all_weights(model, saved, origin=str(checkpoint))
    _require_finite(model, str(checkpoint))
    num_classes = count_classes(model)
    names = _class_names(saved, settings, num_classes, checkpoint)
    colours = _palette(palette, meta, num_classes)
    if tta:
        model = _with_augmentation(model, settings, origin)
    return Detector(
        model,
        pipeline,
        class_names=names,
        palette=colours,
        checkpoint=str(checkpoint),
        config="from the checkpoint" if config is None else str(config),
    )


def read_options(pairs: Sequence[str]) -> dict[str, Any]:
    """Read ``KEY=VALUE`` as the other scripts read ``--cfg-options``.

    Raises:
        ValueError: something is no such pair.
    """
    parser = Parser("detect", "Reads settings.")
    parser.add_argument("--cfg-options", nargs="*", action=KeyValues, default={})
    return parser.parse_known(["--cfg-options", *pairs]).cfg_options


def count_classes(model: nn.Module) -> int | None:
    """Return how many classes a detector of mmdet tells apart, None where it does not say."""
    heads = getattr(getattr(model, "roi_head", model), "bbox_head", None)
    head = heads[0] if isinstance(heads, nn.ModuleList) else heads
    return getattr(head, "num_classes", None)


def _saved_settings(
    meta: Mapping[str, Any], checkpoint: str | Path, cfg_options: Mapping[str, Any]
) -> Config:
    if cfg_options:
        raise ValueError(
            f"build_detector: expected a config to override, got {', '.join(cfg_options)} and the "
            f"config that {checkpoint} holds; give --config FILE"
        )
    text = meta.get("cfg")
    if not isinstance(text, str):
        old = "the config of mmdet 2.x" if isinstance(meta.get("config"), str) else "none"
        raise ValueError(
            f"build_detector: expected a config, or a checkpoint that mmengine wrote with its own, "
            f"got {checkpoint} with {old}; give --config FILE"
        )
    return read_saved_config(text, origin=str(checkpoint))


def _test_pipeline(settings: Config, origin: str, *, tta: bool) -> Sequence[Mapping[str, Any]]:
    if tta:
        if "tta_model" not in settings or "tta_pipeline" not in settings:
            raise ValueError(
                f"build_detector: expected tta_model and tta_pipeline for --tta, got {origin} "
                "without them"
            )
        return settings.tta_pipeline
    try:
        return get_test_pipeline_cfg(settings)
    except (AttributeError, RuntimeError) as error:
        raise ValueError(
            f"build_detector: expected a test_dataloader with a pipeline, got {origin} without one"
        ) from error


def _pipeline_in_memory(pipeline: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the transforms for an image in memory: nothing is read, nothing is annotated."""
    if not pipeline or str(pipeline[0].get("type")).rpartition(".")[2] not in LOADERS:
        raise ValueError(
            "Detector: expected a pipeline that starts with LoadImageFromFile, got "
            f"{[step.get('type') for step in pipeline]}"
        )
    loader: dict[str, Any] = {"type": "mmdet.LoadImageFromNDArray"}
    if "to_float32" in pipeline[0]:
        loader["to_float32"] = pipeline[0]["to_float32"]
    rest = [dict(step) for step in pipeline[1:] if "LoadAnnotations" not in str(step.get("type"))]
    return [loader, *rest]


def _build_model(settings: Config, origin: str, device: str) -> nn.Module:
    if not isinstance(settings.get("model"), Mapping):
        raise ValueError(f"build_detector: expected a config with a model, got {origin} without")
    # Recorded and dropped: for now init_detector takes COCO's names, and says so.
    with warnings.catch_warnings(record=True):
        try:
            # Any palette but "none", for which it would open the test set.
            return init_detector(settings, None, palette="random", device=device)
        except (KeyError, TypeError, AttributeError, AssertionError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ValueError(
                f"build_detector: expected a config that today's mmdet can build, got {origin} "
                f"({type(error).__name__}: {reason})"
            ) from error


def _require_finite(model: nn.Module, origin: str) -> None:
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            raise ValueError(
                f"build_detector: expected finite weights, got NaN or infinity in {origin}: {name}"
            )


def _with_augmentation(model: nn.Module, settings: Config, origin: str) -> nn.Module:
    if getattr(getattr(model, "roi_head", None), "with_mask", False):
        raise ValueError(
            f"build_detector: expected a detector of boxes alone for --tta, got {origin} with "
            "masks, which mmdet cannot merge"
        )
    return MODELS.build({**settings.tta_model, "module": model}).eval()


def _class_names(
    saved: Mapping[str, Any], settings: Config, num_classes: int | None, checkpoint: str | Path
) -> tuple[str, ...]:
    """Return the names that the checkpoint holds, else those of the config's data set, if any."""
    names = class_names(saved)
    if names is not None:
        if num_classes not in (None, len(names)):
            raise ValueError(
                f"build_detector: expected {num_classes} class names as the model has classes, "
                f"got {len(names)} in {checkpoint}"
            )
        return names
    names = _names_of_data_set(settings.test_dataloader.dataset)
    return names if num_classes in (None, len(names)) else ()


def _names_of_data_set(data_set: ConfigDict) -> tuple[str, ...]:
    while "dataset" in data_set or "datasets" in data_set:
        data_set = data_set["dataset"] if "dataset" in data_set else data_set["datasets"][0]
    names = data_set.get("metainfo", {}).get("classes")
    if names is None:
        kind = DATASETS.get(data_set.type)
        names = getattr(kind, "METAINFO", {}).get("classes", ())
    return (names,) if isinstance(names, str) else tuple(names)


def _palette(name: PaletteName | None, meta: Mapping[str, Any], num_classes: int | None) -> Palette:
    if name is not None:
        try:
            get_palette(name, num_classes or 1)
        except AssertionError as error:
            raise ValueError(
                f"build_detector: expected a palette with a colour for each of {num_classes} "
                f"classes, got {name}; random has as many as are needed"
            ) from error
        return name
    of_data_set = meta.get("dataset_meta")
    saved = of_data_set.get("palette") if isinstance(of_data_set, Mapping) else None
    if isinstance(saved, (list, tuple)) and len(saved) >= (num_classes or COCO_COLOURS):
        return [(int(colour[0]), int(colour[1]), int(colour[2])) for colour in saved]
    return "coco" if (num_classes or COCO_COLOURS + 1) <= COCO_COLOURS else "random"
