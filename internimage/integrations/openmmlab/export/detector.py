"""Detectors of mmdet as ONNX files: an image in, boxes, classes and masks out.

Shape legend: N images, H W of the model's input in pixels, K detections of an image.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mmdet.datasets  # noqa: F401  the registry would import it later, and it prints
import torch
from mmdet.models.detectors import DINO, TwoStageDetector
from mmdet.models.detectors.base import BaseDetector
from mmdet.visualization.palette import get_palette
from mmengine.config import Config
from torch import nn

import internimage.integrations.openmmlab.detection  # noqa: F401  registers what configs name
from internimage.export import ExportOptions, ExportReport, ModelMetadata, export_onnx
from internimage.export.packages import require_packages
from internimage.export.placing import check_output
from internimage.integrations.openmmlab.export import box_operators, box_operators_in_loops
from internimage.integrations.openmmlab.export.detections import TOLERANCE, DetectionDifference
from internimage.integrations.openmmlab.export.dino import ExportableDINO
from internimage.integrations.openmmlab.export.fixed_sizes import warn_of_shrinking
from internimage.integrations.openmmlab.export.pictures import pictures
from internimage.integrations.openmmlab.export.predictions import Predictions
from internimage.integrations.openmmlab.export.rcnn import ExportableRCNN
from internimage.integrations.openmmlab.export.sources import (
    Resizing,
    build_for_export,
    check_multiple,
    norm_of,
    read_export_sources,
    resizing_of,
)
from internimage.integrations.openmmlab.prediction.detector import COCO_COLOURS, count_classes
from internimage.integrations.openmmlab.prediction.loading import Sources, names_of
from internimage.runtime.inputs import round_up

USUAL_SIZE = (800, 1344)  # COCO's 800 x 1333, padded to multiples of 32
"""Traced where neither the options nor the config say how large images are."""


def export_detector(
    config: str | Path | Config,
    checkpoint: str | Path | None,
    output: str | Path,
    options: ExportOptions,
    *,
    keep: bool = False,
) -> ExportReport:
    """Write a detector as an ONNX file that has been run and compared with mmdet's own results.

    Inputs are ``input`` (N, 3, H, W), normalised and padded as the metadata say, and ``image_size``
    (N, 2), int64: height and width of the part of each that holds its image. Outputs are ``dets``
    (N, K, 5), left, top, right, bottom and score in pixels of the input, best first; ``labels``
    (N, K), int64, -1 where there is no detection; and of a model with masks ``masks``
    (N, K, 28, 28), probabilities within the box.

    Args:
        config: of the model, a file or its content.
        checkpoint: weights: a file, an address or a released name; None for random ones.
        output: the file.
        options: what it is to be. If it names neither a size nor open axes, height and width are
            open where the config keeps an image's ratio of sides. Size is else that of the config's
            test images.
        keep: keep a file that differs too much as ``OUTPUT.failed``.

    Raises:
        FileNotFoundError: the config or the checkpoint does not exist.
        ImportError: onnx, onnxscript or onnxruntime is not installed.
        OSError: the file cannot be written.
        ValueError: the detector cannot be exported so; the message says why.
    """
    require_packages("export_detector")
    check_output(Path(output))  # now: what follows takes minutes
    sources = read_export_sources("detector", config, checkpoint)
    resizing = resizing_of(sources)
    # Loops are of fixed sizes.
    keeps_ratio = resizing.keep_ratio and options.boxes == "operators"
    options = options.decided(keeps_ratio=keeps_ratio)
    model: Any = build_for_export(sources, BaseDetector, scope="mmdet")
    mean, std, blue_first = norm_of(model)
    form = exportable(model, blue_first=blue_first)
    translations = _translations(form, options)
    # Of a preprocessor without it 1: nothing is padded.
    divisor = int(getattr(model.data_preprocessor, "pad_size_divisor", None) or 1)
    size = options.image_size or _usual_size(resizing, divisor)
    _check_size(form, size, divisor)
    metadata = ModelMetadata(
        task="detection",
        model=Path(sources.config).stem,
        mean=mean,
        std=std,
        resize=_resize_fields(sources, model, size, divisor, options),
        score_threshold=_score_threshold(model),
        mask_threshold=_mask_threshold(model),
        **_facts_of_classes(sources, count_classes(model)),
    )
    warn_of_shrinking(Path(output).name, resizing, size, options)
    # halve() works in place, and the reference needs the form's masks in float32.
    traced = copy.deepcopy(form)
    if options.precision == "fp16":
        traced.halve()
    has_masks = metadata.mask_threshold is not None
    difference = DetectionDifference(options.precision)
    example, *checks = _inputs(size, divisor, options)
    report = export_onnx(
        traced.eval(),
        example,
        Path(output),
        output_names=["dets", "labels", "masks"] if has_masks else ["dets", "labels"],
        dynamic_axes={
            "input": {0: "batch", 2: "height", 3: "width"},
            "image_size": {0: "batch"},  # it must be open wherever the images are
        },
        options=options,
        metadata=metadata,
        checks=checks,
        tolerance=TOLERANCE[options.precision],
        compare=difference,
        reference=Predictions(
            model, form, num_detections=form.num_detections, blue_first=blue_first
        ).eval(),
        translations=translations,
        keep=keep,
    )
    if report.checks and difference.count == 0:
        warnings.warn(
            f"export_detector: {report.path} was compared with PyTorch on images without any "
            "detection; compare it on yours",
            stacklevel=2,
        )
    return report


def exportable(model: Any, *, blue_first: bool = False) -> ExportableRCNN | ExportableDINO:
    """Return a detector in a form with fixed shapes, whose results are the same.

    Args:
        model: of mmdet, in evaluation mode.
        blue_first: whether it sees blue, green, red; the form takes red, green, blue.

    Raises:
        ValueError: the detector is of a kind that is not known here, or some part of it is.
    """
    form: ExportableRCNN | ExportableDINO
    if isinstance(model, TwoStageDetector):
        form = ExportableRCNN(model, blue_first=blue_first)
    elif isinstance(model, DINO):
        form = ExportableDINO(model, blue_first=blue_first)
    else:
        raise ValueError(
            "export_detector: expected Faster, Mask or Cascade R-CNN, InternImageDINO or CBDINO, "
            f"got {type(model).__name__}; mmdeploy's route may know it: detection/deploy.py with a "
            "deploy config"
        )
    return form.eval()


def _translations(
    form: ExportableRCNN | ExportableDINO, options: ExportOptions
) -> dict[Any, Callable[..., Any]]:
    """Return how suppression and RoIAlign are written."""
    if isinstance(form, ExportableDINO):
        options.warn_of_boxes("export_detector", "DINO")  # which needs no suppression
        return {}
    if options.boxes == "operators":
        if not form.cuts_boxes_off:
            # stacklevel 3: the line that called export_detector.
            warnings.warn(
                "export_detector: with clip_border = False of a bbox_coder boxes may lie far "
                "outside of the image, for which OpenVINO's RoIAlign answers NaN",
                stacklevel=3,
            )
        return box_operators.translations()
    if options.opened:
        raise ValueError(
            "export_detector: expected fixed sizes, without open axes, for boxes = loops, got "
            f"{', '.join(sorted(options.opened))} open"
        )
    if not form.cuts_boxes_off:
        raise ValueError(
            "export_detector: expected clip_border = True of all bbox_coder for boxes = loops, "
            "which take boxes within the image, got False"
        )
    return box_operators_in_loops.translations()


def _usual_size(resizing: Resizing, divisor: int) -> tuple[int, int]:
    """Return (H, W) of a wide image behind the test pipeline, padded."""
    if resizing.scale is None:
        return USUAL_SIZE
    width, height = resizing.scale
    if resizing.keep_ratio:
        height, width = sorted(resizing.scale)  # either order means the same with keep_ratio
    multiple = resizing.multiple_of or 1
    # First the pipeline's ResizeToMultiple, then the preprocessor's padding.
    sides = (round_up(round_up(side, multiple), divisor) for side in (height, width))
    return next(sides), next(sides)


def _check_size(form: nn.Module, size: tuple[int, int], divisor: int) -> None:
    if any(side % divisor for side in size):
        raise ValueError(
            f"export_detector: expected image_size = multiples of {divisor}, to which the config "
            f"pads images, got {size[0]}x{size[1]}"
        )
    if not isinstance(form, ExportableDINO):
        return
    # Without this check the choice of the best queries would fail, far inside of the trace.
    most = form.num_candidates(size)
    if most < form.num_queries:
        raise ValueError(
            f"export_detector: expected image_size with at least {form.num_queries} places for the "
            f"queries to start from, got {size[0]}x{size[1]} with {most}"
        )


def _resize_fields(
    sources: Sources,
    model: Any,
    size: tuple[int, int],
    divisor: int,
    options: ExportOptions,
) -> dict[str, Any]:
    """Return what the metadata say about resizing an image and padding it to the input."""
    resizing = resizing_of(sources)
    fixed = [
        None if axis in options.opened else side
        for axis, side in zip(("height", "width"), size, strict=True)
    ]
    padding = {
        "pad_divisor": divisor if divisor > 1 else None,
        "pad_to": None if fixed == [None, None] else fixed,
        "pad_value": model.data_preprocessor.pad_value,
    }
    if resizing.scale is None or resizing.keep_ratio:
        return {
            "mode": "keep_ratio",
            "scale": None if resizing.scale is None else sorted(resizing.scale, reverse=True),
            "filter": "cv2_bilinear",
            "multiple_of": resizing.multiple_of,
            **padding,
        }
    check_multiple(resizing, sources.origin)
    # A side that is larger than its input is made to fit; a smaller one is padded, as by mmdet.
    sides = [
        side if limit is None else min(side, limit)
        for side, limit in zip(reversed(resizing.scale), fixed, strict=True)
    ]
    return {"mode": "exact", "size": sides, "filter": "cv2_bilinear", **padding}


def _score_threshold(model: Any) -> float:
    settings = model.test_cfg.get("rcnn") or {}  # a DINO has none, and gives all its K
    return float(settings.get("score_thr", 0.0))


def _mask_threshold(model: Any) -> float | None:
    if not getattr(model, "with_mask", False):
        return None
    return float(model.test_cfg.rcnn.mask_thr_binary)


def _facts_of_classes(sources: Sources, num_classes: int | None) -> dict[str, Any]:
    count = num_classes or 1
    colours: Sequence[Sequence[int]] | None = sources.saved_palette
    # As `internimage detect`: the checkpoint's colours, else COCO's while they suffice.
    if colours is None or len(colours) < count:
        colours = get_palette("coco" if count <= COCO_COLOURS else "random", count)
    return {
        "classes": names_of(sources, num_classes),
        "palette": [[int(value) for value in colour] for colour in colours[:count]],
    }


def _inputs(
    size: tuple[int, int], divisor: int, options: ExportOptions
) -> list[dict[str, torch.Tensor]]:
    """Return what is traced, and more to compare with: padded images, other sizes where open."""
    batch_size = options.batch_size
    if "batch" in options.opened:
        batch_size = max(batch_size, 2)  # a trace of one would be right for one alone
    height, width = size
    inputs = [
        pictures(batch_size, size, size, seed=0),
        # A fifth and a third are padding: at full size whole cells of every map.
        pictures(batch_size, size, (height - height // 5, width - width // 3), seed=1),
    ]
    if options.opened:
        other = (
            round_up(height + height // 4, divisor) if "height" in options.opened else height,
            round_up(width - width // 5, divisor) if "width" in options.opened else width,
        )
        count = batch_size + 1 if "batch" in options.opened else batch_size
        # 3: of a border that is no multiple of any stride.
        inputs.append(pictures(count, other, (other[0] - 3, other[1]), seed=2))
    return inputs
