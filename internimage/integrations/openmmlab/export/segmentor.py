"""Segmentors of mmseg as ONNX files: an image in, the scores of all classes for every pixel out.

What mmseg does around its model is left to the runner: resizing, windows that slide, scores at the
size of the original image. The file's metadata say how.

Shape legend: N batch, C classes, H W of the model's input in pixels.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import mmseg.datasets  # noqa: F401  the registry would import it later, and it prints
import numpy as np
import torch
from mmengine.config import Config
from mmseg.models.decode_heads import Mask2FormerHead, SegformerHead, UPerHead
from mmseg.models.segmentors.base import BaseSegmentor
from torch import Tensor, nn

from internimage.export import ExportOptions, ExportReport, ModelMetadata, export_onnx
from internimage.export.options import SIDES
from internimage.export.packages import require_packages
from internimage.export.placing import check_output
from internimage.export.report import Difference
from internimage.integrations.openmmlab.export.fixed_sizes import warn_of_squeezing
from internimage.integrations.openmmlab.export.segmentor_parts import (
    Labels,
    Scores,
    traceable_scores,
)
from internimage.integrations.openmmlab.export.sources import (
    Resizing,
    build_for_export,
    check_multiple,
    norm_of,
    read_export_sources,
    resizing_of,
)
from internimage.integrations.openmmlab.prediction.loading import Sources, names_of
from internimage.integrations.openmmlab.prediction.segmentor import count_labels, palette_of
from internimage.integrations.openmmlab.segmentation.palettes import random_palette
from internimage.integrations.openmmlab.segmentation.sliding import check_sliding

Window = tuple[tuple[int, int], tuple[int, int]]
"""Size and stride, each (height, width) in pixels."""

TOLERANCE = {"fp32": 1e-5, "fp16": 2e-3}  # those of classifiers
"""Largest difference to PyTorch's scores in float32, over the largest of these."""

LABEL_TOLERANCE = {"fp32": 1e-4, "fp16": 1e-2}
"""Largest share of pixels whose label may differ: those of which two classes are as good."""

KNOWN_HEADS = (UPerHead, SegformerHead, Mask2FormerHead)
"""Those of this repository's configs; others are tried, and compared like these."""

USUAL_THRESHOLD = 0.5
"""Of the probability of a single class, where a head says nothing."""

SMALLEST_TRACE = 64  # two pixels of the smallest map: see _example
"""Pixels along an open axis."""

USUAL_SIZE = (512, 512)  # the crop of the smaller models on ADE20K
"""Traced where neither the options nor the config say how large images are."""


def export_segmentor(
    config: str | Path | Config,
    checkpoint: str | Path | None,
    output: str | Path,
    options: ExportOptions,
    *,
    argmax: bool = False,
    keep: bool = False,
) -> ExportReport:
    """Write a segmentor as an ONNX file that has been run and compared with PyTorch.

    ``input`` (N, 3, H, W), normalised as the metadata say, gives ``scores`` (N, C, H, W), float32:
    what mmseg has before it resizes to the original image. Auxiliary heads are left out.

    Args:
        config: of the model, a file or its content.
        checkpoint: weights: a file, an address or a released name; None for random ones.
        output: the file.
        options: what it is to be. If it names neither a size nor open axes, height and width of
            whole images are open where the config keeps their ratio; the size is else the config's
            window, or that to which it resizes.
        argmax: give ``labels`` (N, H, W) instead of scores. The runner enlarges labels, not scores,
            to the original image then, and cannot let windows slide.
        keep: keep a file that differs too much as ``OUTPUT.failed``.

    Raises:
        FileNotFoundError: the config or the checkpoint does not exist.
        ImportError: onnx, onnxscript or onnxruntime is not installed.
        OSError: the file cannot be written.
        ValueError: the segmentor cannot be exported so; the message says why.
    """
    require_packages("export_segmentor")
    options.warn_of_boxes("export_segmentor", "a segmentor")
    check_output(Path(output))  # now: what follows takes minutes
    sources = read_export_sources("segmentor", config, checkpoint)
    segmentor: Any = build_for_export(sources, BaseSegmentor, scope="mmseg")
    window = _window_of(segmentor)
    if argmax and window is not None:
        raise ValueError(
            "export_segmentor: expected a model of whole images for labels, got one whose windows "
            f"slide in {sources.origin}: where they overlap, scores are needed"
        )
    resizing = resizing_of(sources)
    options = options.decided(keeps_ratio=window is None and resizing.keep_ratio)
    size = options.image_size or _usual_size(sources, resizing, window)
    mean, std, blue_first = norm_of(segmentor)
    # mmseg's heads have it for a single class alone; Mask2Former's have no such field.
    found = getattr(segmentor.decode_head, "threshold", None)
    threshold = USUAL_THRESHOLD if found is None else float(found)
    metadata = ModelMetadata(
        task="segmentation",
        model=Path(sources.config).stem,
        mean=mean,
        std=std,
        resize=resize_fields(sources, segmentor, size, options, window),
        window=None if window is None else {"size": list(window[0]), "stride": list(window[1])},
        mask_threshold=threshold,
        **_facts_of_classes(sources, count_labels(segmentor)),
    )
    if window is None and not set(SIDES) <= options.opened:
        warn_of_squeezing(Path(output).name, resizing, size)
    # What is compared with is mmseg's own computation, in float32.
    model: nn.Module = traceable_scores(segmentor, options, blue_first=blue_first)
    reference: nn.Module = Scores(segmentor, blue_first=blue_first)
    if argmax:
        model, reference = (Labels(each, threshold=threshold) for each in (model, reference))
    with _other_route(segmentor, sources):
        return export_onnx(
            model.eval(),
            {"input": _example(size, options)},
            Path(output),
            output_names=["labels" if argmax else "scores"],
            dynamic_axes={"input": {0: "batch", 2: "height", 3: "width"}},
            options=options,
            metadata=metadata,
            checks=_checks(size, options),
            tolerance=(LABEL_TOLERANCE if argmax else TOLERANCE)[options.precision],
            compare=_share_of_other_labels if argmax else None,
            reference=reference.eval(),
            keep=keep,
        )


@contextlib.contextmanager
def _other_route(segmentor: Any, sources: Sources) -> Iterator[None]:
    """Name mmdeploy in the error about a head that is none of this repository's configs."""
    try:
        with warnings.catch_warnings():
            # mmdet's own, of every Mask2Former, whose point generator still calls it the old way.
            warnings.filterwarnings("ignore", "torch.meshgrid", UserWarning)
            yield
    # What a head raises that nobody has tried is of no certain type.
    except (ValueError, RuntimeError, TypeError, AssertionError, AttributeError) as error:
        if isinstance(segmentor.decode_head, KNOWN_HEADS):
            raise
        name = type(segmentor.decode_head).__name__
        raise ValueError(
            f"{' '.join(str(error).split())[:500]} ({name} of {sources.origin} is none of the "
            "heads that are known to work, UPerHead, SegformerHead and Mask2Former's; mmdeploy may "
            "have rules of its own for it: segmentation/deploy.py DEPLOY_CFG MODEL_CFG CHECKPOINT "
            "IMAGE)"
        ) from error


def resize_fields(
    sources: Sources,
    segmentor: Any,
    size: tuple[int, int],
    options: ExportOptions,
    window: Window | None,
) -> dict[str, Any]:
    """Return what the metadata say about resizing an image for the exported file.

    Whole images of a file whose height or width is fixed are resized to its very size, as nothing
    else would fit; all others as the config's test pipeline does it.

    Args:
        sources: of the model.
        segmentor: the model.
        size: (H, W) of the traced input, pixels.
        options: say what is fixed.
        window: that slides over the resized image, if any.

    Raises:
        ValueError: a fixed size is not that of the windows, or the pipeline is not known.
    """
    is_fixed = not set(SIDES) <= options.opened
    fixed_window = window[0] if window is not None and is_fixed else None
    if fixed_window is not None and size != fixed_window:
        raise ValueError(
            f"export_segmentor: expected image_size = {fixed_window}, the size of the windows of "
            f"{sources.origin}, got {size}"
        )
    if window is None and is_fixed:
        return {"mode": "exact", "size": list(size), "filter": "cv2_bilinear"}
    resizing = resizing_of(sources)
    if resizing.scale is not None and not resizing.keep_ratio:
        check_multiple(resizing, sources.origin)
        width, height = resizing.scale
        return {"mode": "exact", "size": [height, width], "filter": "cv2_bilinear"}
    # mmseg pads images of a test by this alone; its size and size_divisor are for training.
    padding = getattr(segmentor.data_preprocessor, "test_cfg", None) or {}
    # Smaller images than a window are padded to one, the only size that the file then takes.
    pad_to = padding.get("size") or fixed_window
    return {
        "mode": "keep_ratio",
        # mmcv keeps an image within both, whichever of the two stands first.
        "scale": None if resizing.scale is None else sorted(resizing.scale, reverse=True),
        "filter": "cv2_bilinear",
        "multiple_of": resizing.multiple_of,
        "pad_divisor": padding.get("size_divisor"),
        "pad_to": None if pad_to is None else list(pad_to),
        "pad_value": segmentor.data_preprocessor.pad_val,
    }


def _window_of(segmentor: Any) -> Window | None:
    test_cfg = segmentor.test_cfg or {}
    return check_sliding(test_cfg) if test_cfg.get("mode") == "slide" else None


def _usual_size(sources: Sources, resizing: Resizing, window: Window | None) -> tuple[int, int]:
    if window is not None:
        return window[0]
    if resizing.scale is not None and not resizing.keep_ratio:
        return resizing.scale[::-1]
    # What it was trained on: an open size has to be traced at some size.
    crop = sources.settings.model.get("data_preprocessor", {}).get("size")
    return USUAL_SIZE if crop is None else (int(crop[0]), int(crop[1]))


def _facts_of_classes(sources: Sources, num_labels: int) -> dict[str, Any]:
    # Fewer: heads of the original have 150 outputs for Cityscapes' 19 classes too.
    names = names_of(sources, num_labels, fewer=True)
    colours = palette_of(sources, len(names) or num_labels)
    # The same as `internimage segment` gives to outputs without a name.
    colours = [*colours, *random_palette(num_labels)[len(colours) :]][:num_labels]
    return {"classes": names, "palette": colours}


def _example(size: tuple[int, int], options: ExportOptions) -> Tensor:
    """Return the traced input: torch.export takes an open axis of one entry for one of no other.

    That holds for the axes of the smallest maps as well, whose sides are a 32nd of the image's.
    """
    height, width = (
        max(side, SMALLEST_TRACE) if name in options.opened else side
        for name, side in zip(("height", "width"), size, strict=True)
    )
    return _images((height, width), _traced_batch(options), seed=0)


def _traced_batch(options: ExportOptions) -> int:
    # Of one image a trace would be right for one alone, as of any open axis.
    return max(options.batch_size, 2) if "batch" in options.opened else options.batch_size


def _images(size: tuple[int, int], batch_size: int, *, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch_size, 3, *size, generator=generator)


def _checks(size: tuple[int, int], options: ExportOptions) -> list[dict[str, Tensor]]:
    """Return inputs of the size itself, and of odd ones where sizes are open."""
    height, width = size
    tried = [size]
    if options.opened:
        # One side smaller, one larger, neither a multiple of the network's 32.
        odd = (
            height - height // 8 + 5 if "height" in options.opened else height,
            width + width // 8 + 3 if "width" in options.opened else width,
        )
        tried.append(odd)
    # An open batch is tried with other numbers than the traced one.
    batches = [options.batch_size, _traced_batch(options) + ("batch" in options.opened)]
    return [
        {"input": _images(each, batch, seed=seed)}
        for seed, (each, batch) in enumerate(zip(tried, batches, strict=False), start=1)
    ]


def _share_of_other_labels(expected: Sequence[Tensor], found: Sequence[np.ndarray]) -> Difference:
    return Difference(float((expected[0].numpy() != found[0]).mean()), "of the labels")
