"""Classifiers as ONNX files: ``input`` (N, 3, H, W), normalised, to ``logits`` (N, classes).

A model with the MetaFormer head takes ``times`` (N, 4) and ``places`` (N, 3) besides, zeros where
they are unknown.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from internimage.export.half import to_half
from internimage.export.metadata import ModelMetadata
from internimage.export.options import ExportOptions
from internimage.export.report import ExportReport
from internimage.export.writing import export_onnx
from internimage.heads import PROJECTOR_STRIDE
from internimage.metadata import Preprocessing
from internimage.metaformer import SPATIAL_DIM, TEMPORAL_DIM, InternImageMetaFormer
from internimage.model import InternImage

# Measured: InternImage-T 5e-7, in half 8e-4; InternImage-H with random weights in half 1.9e-3.
TOLERANCES = {"fp32": 1e-5, "fp16": 2e-3}
"""Largest difference to PyTorch in float32, over the largest logit."""

_SMALLEST_TRACE = 64  # twice the stride of the last map
"""Pixels along an open axis: with fewer the last map is one pixel, and a trace takes that for 1."""

_ODD_STEP = 13
"""Pixels that a check is larger than the trace, for heads that take any size."""

_WITH_META = ("times", "places")


def export_classifier(
    model: InternImage,
    path: Path,
    *,
    name: str,
    preprocessing: Preprocessing,
    options: ExportOptions,
    class_names: Sequence[str] = (),
    crop: bool = True,
    tolerance: float | None = None,
    keep: bool = False,
) -> ExportReport:
    """Write a classifier as ONNX; it is there when ONNX Runtime agrees with PyTorch.

    Args:
        model: in evaluation mode, float32, with a head.
        path: the file.
        name: what the model is called.
        preprocessing: how its images are prepared.
        options: what the file is to be.
        class_names: one a class, or none at all.
        crop: whether the middle of an image is cut out; else the whole is squeezed.
        tolerance: largest difference to PyTorch, over the largest logit; None is that of
            :data:`TOLERANCES`.
        keep: keep a file that differs too much as ``PATH.failed``.

    Raises:
        ImportError: a package of the extra ``export`` is missing.
        OSError: the file cannot be written.
        ValueError: the head does not take the size, the number of names is not that of the classes,
            or the file differs too much from PyTorch.
    """
    if tolerance is not None and not tolerance > 0:
        raise ValueError(f"export_classifier: expected tolerance > 0, got {tolerance}")
    if class_names and len(class_names) != model.num_classes:
        raise ValueError(
            f"export_classifier: expected {model.num_classes} class names, got {len(class_names)}"
        )
    options.warn_of_boxes("export_classifier", "a classifier")
    size = options.image_size or (preprocessing.image_size, preprocessing.image_size)
    _check_size(model, size)
    is_meta = isinstance(model, InternImageMetaFormer)
    # The reference stays float32 where the file is half: its answers are the ones that are known.
    reference: nn.Module = _MetaFormer(model).eval() if is_meta else model
    traced = to_half(reference) if options.precision == "fp16" else reference
    generator = torch.Generator().manual_seed(0)
    example, *checks = (
        _draw(shape, is_meta, generator) for shape in _input_shapes(model, size, options)
    )
    axes = {"input": {0: "batch", 2: "height", 3: "width"}}
    if is_meta:
        axes |= {part: {0: "batch"} for part in _WITH_META}
    return export_onnx(
        traced,
        example,
        path,
        output_names=["logits"],
        dynamic_axes=axes,
        options=options,
        metadata=_metadata(name, preprocessing, class_names, size, crop=crop),
        checks=checks,
        tolerance=TOLERANCES[options.precision] if tolerance is None else tolerance,
        reference=reference,
        keep=keep,
    )


class _MetaFormer(nn.Module):
    """The MetaFormer model with three inputs in place of one sequence."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input: Tensor, times: Tensor, places: Tensor) -> Tensor:
        return self.model((input, times, places))


def _check_size(model: InternImage, size: tuple[int, int]) -> None:
    if model.use_clip_projector and any(side % PROJECTOR_STRIDE for side in size):
        raise ValueError(
            f"export_classifier: expected height and width as multiples of {PROJECTOR_STRIDE} for "
            f"the CLIP-projector head, got {size[0]} x {size[1]}"
        )


def _input_shapes(
    model: InternImage, size: tuple[int, int], options: ExportOptions
) -> list[tuple[int, int, int]]:
    """(N, H, W) of the traced input and of those to compare with."""
    opened = options.opened
    step = PROJECTOR_STRIDE if model.use_clip_projector else _ODD_STEP
    sides = {"height": size[0], "width": size[1]}
    traced = {
        word: max(side, _SMALLEST_TRACE) if word in opened else side for word, side in sides.items()
    }
    # One image would be taken for "always one", see trace().
    batch = max(options.batch_size, 2) if "batch" in opened else options.batch_size
    first = (batch, traced["height"], traced["width"])
    if not opened:
        # Other numbers in the same shape: a trace may have kept one that it saw in its example.
        return [first, first]

    def vary(batch: int, numbers: dict[str, int]) -> tuple[int, int, int]:
        chosen = {word: numbers[word] if word in opened else side for word, side in sides.items()}
        wanted = batch if "batch" in opened else options.batch_size
        return wanted, chosen["height"], chosen["width"]

    # Sides that differ and, but for the projector, that no stride divides: maps are rounded up. The
    # smaller ones may leave a last map of one pixel, which the trace had to avoid.
    larger = {word: side + step * (1 + (word == "width")) for word, side in traced.items()}
    smaller = {word: max(side // 2 // step, 1) * step for word, side in traced.items()}
    return [first, vary(options.batch_size, sides), vary(1, larger), vary(3, smaller)]


def _draw(
    shape: tuple[int, int, int], is_meta: bool, generator: torch.Generator
) -> dict[str, Tensor]:
    """Draw inputs that look like normalised ones."""
    batch, height, width = shape

    def normal(*sizes: int) -> Tensor:
        return torch.randn(batch, *sizes, generator=generator)

    inputs = {"input": normal(3, height, width)}
    if is_meta:
        # Not the zeros of an unknown place: behind them a wrong weight would not show.
        inputs |= {"times": normal(TEMPORAL_DIM), "places": normal(SPATIAL_DIM)}
    return inputs


def _metadata(
    name: str,
    preprocessing: Preprocessing,
    class_names: Sequence[str],
    size: tuple[int, int],
    *,
    crop: bool,
) -> ModelMetadata:
    resize: dict[str, object] = {"size": list(size), "filter": preprocessing.interpolation}
    if crop:
        # The longer side of the input decides, so that an image of either shape fills it.
        resize |= {"mode": "crop", "shorter_side": round(max(size) / preprocessing.crop_ratio)}
    else:
        resize |= {"mode": "exact"}
    return ModelMetadata(
        task="classification",
        model=name,
        classes=tuple(class_names),
        # The format counts pixels 0-255, as OpenMMLab does; a classifier's preprocessing 0-1.
        mean=tuple(255 * value for value in preprocessing.mean),
        std=tuple(255 * value for value in preprocessing.std),
        resize=resize,
    )
