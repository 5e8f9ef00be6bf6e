"""A detector ready to predict: mmdet's model and pipeline, around images that are in memory.

Shape legend: H W image size in pixels, n instances found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mmdet.datasets  # noqa: F401  the registry would import it later, and it prints
import numpy as np
import torch
from mmdet.models.detectors.base import BaseDetector
from mmdet.structures.mask import encode_mask_results
from mmdet.visualization.palette import get_palette
from mmengine.structures import InstanceData
from torch import nn

import internimage.integrations.openmmlab.detection  # noqa: F401  registers what configs name
from internimage.answers import Detection
from internimage.integrations.openmmlab.prediction.boxes import Painter, Palette, PaletteName
from internimage.integrations.openmmlab.prediction.loading import (
    ModelStep,
    Sources,
    build_model,
    names_of,
    pipeline_of,
    read_sources,
    with_augmentation,
)

COCO_COLOURS = 80


class Detector:
    """Images in, detections and pictures out.

    Args:
        model: a detector of mmdet in evaluation mode, or the same behind test-time augmentation.
        pipeline: the transforms of its test set for an image in memory.
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
        self.pipeline = pipeline
        self._step = ModelStep(model, pipeline)
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
        found = self._step(image).pred_instances.cpu()
        # Before the threshold, which NaN never passes: there would be an answer, without objects.
        if not (found.scores.isfinite().all() and found.bboxes.isfinite().all()):
            raise ValueError(
                "Detector.detect: expected finite boxes and scores, got NaN or infinity: the "
                "weights hold it, or overflow in their dtype"
            )
        found = found[found.scores >= score_threshold]
        # Stable: equal scores keep the head's order.
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
                # pycocotools packs into bytes, which JSON does not know.
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
    sources = read_sources("detector", checkpoint, config, cfg_options=cfg_options, configs=configs)
    pipeline = pipeline_of(sources, tta=tta)
    model = build_model(sources, BaseDetector, scope="mmdet", device=device)
    num_classes = count_classes(model)
    names = names_of(sources, num_classes)
    colours = _palette(palette, sources, num_classes)
    if tta:
        _refuse_masks(model, sources)
        model = with_augmentation(model, sources)
    return Detector(
        model,
        pipeline,
        class_names=names,
        palette=colours,
        checkpoint=sources.checkpoint,
        config=sources.config,
    )


def count_classes(model: nn.Module) -> int | None:
    """Return how many classes a detector of mmdet tells apart, None where it does not say."""
    # Of two stages the head is in roi_head; a cascade has one for each stage, all of one number.
    heads = getattr(getattr(model, "roi_head", model), "bbox_head", None)
    head = heads[0] if isinstance(heads, nn.ModuleList) else heads
    return getattr(head, "num_classes", None)


def _refuse_masks(model: nn.Module, sources: Sources) -> None:
    if getattr(getattr(model, "roi_head", None), "with_mask", False):
        raise ValueError(
            f"expected a detector of boxes alone for --tta, got {sources.origin} with masks, which "
            "mmdet cannot merge"
        )


def _palette(name: PaletteName | None, sources: Sources, num_classes: int | None) -> Palette:
    if name is not None:
        try:
            get_palette(name, num_classes or 1)
        except AssertionError as error:  # mmdet's, of too few colours
            raise ValueError(
                f"build_detector: expected a palette with a colour for each of {num_classes} "
                f"classes, got {name}; random has as many as are needed"
            ) from error
        return name
    saved = sources.saved_palette
    if saved is not None and len(saved) >= (num_classes or COCO_COLOURS):
        return saved
    return "coco" if (num_classes or COCO_COLOURS + 1) <= COCO_COLOURS else "random"
