"""What an export is made of: the config, the model with its weights, the way of its images."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from torch import nn

from internimage.integrations.openmmlab.prediction.loading import (
    Kind,
    Sources,
    build_model,
    make_model,
    pipeline_of,
    require_kind,
)
from internimage.integrations.openmmlab.scripts.checkpoints import read_checkpoint
from internimage.integrations.openmmlab.scripts.config_file import read_config
from internimage.integrations.openmmlab.scripts.config_parts import type_name

COMMANDS: dict[Kind, str] = {
    "detector": "detection/deploy.py",
    "segmentor": "segmentation/deploy.py",
}

PASSIVE = ("LoadImageFromNDArray", "PackSegInputs", "PackDetInputs")
"""Transforms that leave the pixels as they are."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resizing:
    """What a test pipeline does to an image's size, in this order.

    Args:
        scale: (long side, short side), pixels, within which the image is as large as may be, or
            with ``keep_ratio=False`` (width, height); None leaves it as it is.
        keep_ratio: whether it keeps its ratio of sides.
        multiple_of: what both sides are then rounded up to multiples of; None changes nothing.
    """

    scale: tuple[int, int] | None = None
    keep_ratio: bool = True
    multiple_of: int | None = None


def read_export_sources(
    kind: Kind, config: str | Path | Config, checkpoint: str | Path | None
) -> Sources:
    """Read the config and the checkpoint of an export.

    Args:
        kind: of the model.
        config: a file, or its content.
        checkpoint: weights: a file, an address or a released name; None for random ones.

    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: the weights are of another kind of model, or the config cannot be read.
    """
    saved: Mapping[str, Any] = {}
    if checkpoint is not None:
        saved = read_checkpoint(checkpoint)
        require_kind(kind, saved, str(checkpoint), commands=COMMANDS)
    if isinstance(config, Config):
        settings, origin = config, config.filename or "the config"
    else:
        settings, origin = read_config(config), str(config)
    return Sources(
        kind=kind,
        saved=saved,
        settings=settings,
        checkpoint="" if checkpoint is None else str(checkpoint),
        config=origin,
        origin=origin,
    )


def build_for_export(sources: Sources, base: type[nn.Module], *, scope: str) -> nn.Module:
    """Build a model on the CPU and load its weights, random ones where there is no checkpoint.

    Args:
        sources: of the model.
        base: what the model is to be an instance of.
        scope: the package whose names the config uses where it does not say.

    Raises:
        ValueError: the config makes no such model, or the weights do not fit.
    """
    if sources.saved:
        return build_model(sources, base, scope=scope, device="cpu")
    return make_model(sources, base, scope=scope).eval()


def resizing_of(sources: Sources) -> Resizing:
    """Return how the config's test pipeline resizes images.

    Raises:
        ValueError: the pipeline has a transform that a runner of exported files does not know, one
            twice, or ResizeToMultiple before Resize.
    """
    resizing = Resizing()
    before: list[str] = []
    for step in pipeline_of(sources, tta=False):
        name = type_name(step)
        # Whatever comes before Resize is to be done before it, and once.
        if name in before or (name == "Resize" and before):
            raise ValueError(
                "expected a test pipeline with one Resize, then one ResizeToMultiple at most, the "
                f"order of the runner of exported files, got {name} behind {', '.join(before)} in "
                f"{sources.origin}"
            )
        if name not in PASSIVE:
            before.append(name)
        if name == "Resize":
            resizing = dataclasses.replace(resizing, **_resize(step, sources.origin))
        elif name == "ResizeToMultiple" and step.get("interpolation") in (None, "bilinear"):
            # 32 is mmseg's default; without an interpolation it takes the bilinear one too.
            divisor = step.get("size_divisor", 32)
            if not isinstance(divisor, int) or divisor < 1:
                raise ValueError(
                    "expected a ResizeToMultiple with one number for both sides, which the runner "
                    f"of exported files knows, got size_divisor = {divisor} in {sources.origin}"
                )
            resizing = dataclasses.replace(resizing, multiple_of=divisor)
        elif name not in PASSIVE:
            raise ValueError(
                f"expected a test pipeline of Resize and ResizeToMultiple, which the runner of "
                f"exported files knows, got {name} in {sources.origin}"
            )
    return resizing


def check_multiple(resizing: Resizing, origin: str) -> None:
    """Refuse rounding up behind a Resize to a size of its own, which the format has no words for.

    Raises:
        ValueError: the pipeline does that.
    """
    if resizing.scale is None or resizing.keep_ratio or resizing.multiple_of is None:
        return
    raise ValueError(
        "expected a test pipeline with ResizeToMultiple behind a Resize that keeps the ratio of "
        f"sides, got size_divisor = {resizing.multiple_of} behind one to "
        f"{resizing.scale[0]}x{resizing.scale[1]} with keep_ratio = False in {origin}"
    )


def _resize(step: Mapping[str, Any], origin: str) -> dict[str, Any]:
    scale = step.get("scale")
    # mmcv's defaults. The runner's filter is that of cv2; Pillow's also smooths where it shrinks.
    plain = step.get("backend", "cv2") == "cv2" and step.get("interpolation", "bilinear")
    if plain != "bilinear":
        raise ValueError(
            f"expected a Resize with cv2's bilinear filter, got {dict(step)} in {origin}"
        )
    sides = [scale, scale] if isinstance(scale, int) else scale
    if not isinstance(sides, Sequence) or len(sides) != 2:
        raise ValueError(f"expected a Resize with scale = (w, h), got {dict(step)} in {origin}")
    return {
        "scale": (int(sides[0]), int(sides[1])),
        "keep_ratio": bool(step.get("keep_ratio", False)),  # mmcv's default
    }


def norm_of(model: Any) -> tuple[list[float], list[float], bool]:
    """Return mean and standard deviation of red, green, blue, and whether blue comes first.

    Args:
        model: of OpenMMLab, with its data preprocessor.

    Raises:
        ValueError: the preprocessor's numbers are of another number of channels.
    """
    # mmengine keeps what it has made of its arguments in these private fields alone.
    preprocessor = model.data_preprocessor
    if not getattr(preprocessor, "_enable_normalize", False):
        mean, std = [0.0] * 3, [1.0] * 3
    else:
        mean = preprocessor.mean.flatten().tolist()
        std = preprocessor.std.flatten().tolist()
    if len(mean) != 3 or len(std) != 3:
        raise ValueError(
            f"expected a data preprocessor with mean and std of three channels, got {mean}, {std}"
        )
    # Pictures are read blue first: a model sees red first where its preprocessor turns them round.
    is_rgb = bool(getattr(preprocessor, "_channel_conversion", False))
    return (mean, std, False) if is_rgb else (mean[::-1], std[::-1], True)
