"""What a predictor is made of: the config, the model with its weights, the names of classes.

Nothing here is of one task: neither mmdet nor mmseg is imported.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import cv2
import mmcv.ops  # noqa: F401  others would notice only later that the operators are missing
import numpy as np
import torch
from mmcv.transforms import Compose
from mmengine.config import Config, ConfigDict
from mmengine.dataset import pseudo_collate
from mmengine.model.utils import revert_sync_batchnorm
from mmengine.registry import DATASETS, MODELS, init_default_scope
from torch import nn

from internimage.integrations.openmmlab.prediction.saved_config import read_saved_config
from internimage.integrations.openmmlab.scripts.arguments import KeyValues
from internimage.integrations.openmmlab.scripts.checkpoints import (
    class_names,
    load_all_weights,
    read_checkpoint,
)
from internimage.integrations.openmmlab.scripts.config_file import read_config
from internimage.integrations.openmmlab.scripts.config_parts import type_name
from internimage.script import Parser

Kind = Literal["detector", "segmentor"]

COMMANDS: dict[Kind, str] = {
    "detector": "internimage detect",
    "segmentor": "internimage segment",
}

LOADERS = ("LoadImageFromFile", "LoadImageFromNDArray", "LoadImageFromWebcam", "InferencerLoader")
ANNOTATIONS = ("LoadAnnotations", "CheckSegMap")
"""Transforms (or the ends of their names) that read or check what is to be predicted."""

# The first parts of the keys that a model of a kind has and one of another kind has not. The last
# two are of detectors that no config here has.
_HEADS: dict[Kind, tuple[str, ...]] = {
    "segmentor": ("decode_head.",),
    "detector": ("roi_head.", "rpn_head.", "bbox_head.", "query_head.", "mask_head."),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sources:
    """A checkpoint and the config that goes with it.

    Args:
        kind: what they are to make.
        saved: the checkpoint's content.
        settings: the config.
        checkpoint: where the weights are from.
        config: where the config is from, for people.
        origin: the same, for errors.
    """

    kind: Kind
    saved: Mapping[str, Any]
    settings: Config
    checkpoint: str
    config: str
    origin: str

    @property
    def saved_palette(self) -> list[tuple[int, int, int]] | None:
        """The colours (red, green, blue; 0-255) that the checkpoint holds, one a class."""
        meta = _meta(self.saved)
        of_data_set = meta.get("dataset_meta")
        found = of_data_set.get("palette") if isinstance(of_data_set, Mapping) else None
        found = meta.get("PALETTE") if found is None else found  # mmdet 2.x and mmseg 0.x
        if not isinstance(found, (list, tuple)) or not found:
            return None
        return [(int(colour[0]), int(colour[1]), int(colour[2])) for colour in found]


def read_options(pairs: Sequence[str]) -> dict[str, Any]:
    """Read ``KEY=VALUE`` as the other scripts read ``--cfg-options``.

    Raises:
        ValueError: something is no such pair.
    """
    parser = Parser("predict", "Reads settings.")
    parser.add_argument("--cfg-options", nargs="*", action=KeyValues, default={})
    return parser.parse_known(["--cfg-options", *pairs]).cfg_options


def read_sources(
    kind: Kind,
    checkpoint: str | Path,
    config: str | Path | None,
    *,
    cfg_options: Mapping[str, Any] | None = None,
    configs: Path | None = None,
) -> Sources:
    """Read a checkpoint and its config.

    Args:
        kind: what they are to make.
        checkpoint: a file, an address or the name of a released model.
        config: file with the config. None takes the one that mmengine writes into checkpoints.
        cfg_options: settings that override those of ``config``, by their dotted names.
        configs: folder in which today's config is looked for when ``config`` is one of mmdet 2.x
            or mmseg 0.x, for the error.

    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: there is no config, or the weights are of another kind of model.
    """
    saved = read_checkpoint(checkpoint)
    require_kind(kind, saved, str(checkpoint))
    if config is not None:
        settings = read_config(config, cfg_options, configs=configs)
    else:
        settings = _saved_settings(kind, _meta(saved), checkpoint, cfg_options or {})
    return Sources(
        kind=kind,
        saved=saved,
        settings=settings,
        checkpoint=str(checkpoint),
        config="from the checkpoint" if config is None else str(config),
        origin=f"the config in {checkpoint}" if config is None else str(config),
    )


def build_model(sources: Sources, base: type[nn.Module], *, scope: str, device: str) -> nn.Module:
    """Build a model and load its weights, all of them; those of 2022 are renamed.

    Args:
        sources: of the model.
        base: what the model is to be an instance of.
        scope: the package whose names the config uses where it does not say.
        device: where the model runs.

    Returns:
        The model, in evaluation mode.

    Raises:
        ValueError: the config makes no such model, the weights do not fit, or hold NaN.
    """
    model = make_model(sources, base, scope=scope)
    load_all_weights(model, sources.saved, origin=sources.checkpoint)
    _require_finite(model, sources.checkpoint)
    return model.to(device).eval()


def make_model(sources: Sources, base: type[nn.Module], *, scope: str) -> nn.Module:
    """Build a model without its weights.

    Args:
        sources: of the model.
        base: what the model is to be an instance of.
        scope: the package whose names the config uses where it does not say.

    Raises:
        ValueError: the config makes no such model.
    """
    settings, origin = sources.settings, sources.origin
    config = settings.get("model")
    if not isinstance(config, Mapping):
        raise ValueError(f"expected a config with a model, got {origin} without")
    config = ConfigDict(config)
    if isinstance(config.get("backbone"), Mapping):
        config.backbone = ConfigDict({**config.backbone, "init_cfg": None})
    # Recorded and dropped: what libraries say about their own defaults.
    with warnings.catch_warnings(record=True):
        init_default_scope(settings.get("default_scope") or scope)
        try:
            # One process has nothing to synchronise, and CPUs have no such layer.
            model = revert_sync_batchnorm(MODELS.build(config))
        # What a registry, and the parts that it builds, raise about names and values.
        except (KeyError, TypeError, AttributeError, AssertionError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ValueError(
                f"expected a config that today's {scope} can build, got {origin} "
                f"({type(error).__name__}: {reason})"
            ) from error
    if not isinstance(model, base):
        raise ValueError(
            f"expected the config of a {sources.kind}, got {origin}, which makes a "
            f"{type(model).__name__}"
        )
    return model


def with_augmentation(model: nn.Module, sources: Sources) -> nn.Module:
    """Put a model behind the config's test-time augmentation."""
    return MODELS.build({**sources.settings.tta_model, "module": model}).eval()


class ModelStep:
    """One image in memory through the pipeline and the model.

    Args:
        model: in evaluation mode, or behind test-time augmentation.
        pipeline: transforms of an image in memory.
    """

    def __init__(self, model: Any, pipeline: Sequence[Mapping[str, Any]]) -> None:
        self._predict = model.test_step
        self._pipeline = Compose(pipeline)

    @torch.inference_mode()
    def __call__(self, image: np.ndarray) -> Any:
        """Return the model's sample of one image (H, W, 3), uint8, blue-green-red.

        Raises:
            ValueError: the image cannot be resized, or needs more memory than there is.
        """
        try:
            # A batch of one as a loader would make it, with an img_id as mmdet's own inference.
            batch = pseudo_collate([self._pipeline({"img": image, "img_id": 0})])
            return self._predict(batch)[0]
        except (cv2.error, RuntimeError) as error:
            if not isinstance(error, cv2.error) and not _is_out_of_memory(error):
                raise
            height, width = image.shape[:2]
            reason = str(error).partition("\n")[0]
            raise ValueError(
                f"expected an image that the pipeline can resize and the memory can hold, got "
                f"{width}x{height} pixels ({reason})"
            ) from error


def pipeline_of(sources: Sources, *, tta: bool) -> list[dict[str, Any]]:
    """Return the transforms of the test set for an image in memory.

    Args:
        sources: of the model.
        tta: those of test-time augmentation instead.

    Raises:
        ValueError: the config has no such pipeline.
    """
    settings, origin = sources.settings, sources.origin
    if tta:
        if "tta_model" not in settings or "tta_pipeline" not in settings:
            raise ValueError(
                f"expected tta_model and tta_pipeline for --tta, got {origin} without them"
            )
        return _in_memory(settings.tta_pipeline)
    data_set = _innermost(settings.get("test_dataloader", {}).get("dataset", {}))
    if not data_set.get("pipeline"):
        raise ValueError(f"expected a test_dataloader with a pipeline, got {origin} without one")
    return _in_memory(data_set["pipeline"])


def names_of(sources: Sources, num_classes: int | None, *, fewer: bool = False) -> tuple[str, ...]:
    """Return the names that the checkpoint holds, else those of the config's data set, if any.

    Args:
        sources: of the model.
        num_classes: how many the model tells apart, None where it does not say.
        fewer: whether a model may tell apart more than there are names for.

    Raises:
        ValueError: the checkpoint has names for another number of classes.
    """

    def fits(names: Sequence[str]) -> bool:
        return num_classes in (None, len(names)) or (fewer and len(names) < (num_classes or 0))

    # The checkpoint's before the config's, which may be of other data.
    names = class_names(sources.saved)
    if names is not None:
        if not fits(names):
            raise ValueError(
                f"expected {num_classes} class names as the model has classes, got {len(names)} in "
                f"{sources.checkpoint}"
            )
        return names
    found = facts_of_data_set(sources, "classes")
    names = (found,) if isinstance(found, str) else tuple(found or ())
    return names if fits(names) else ()


def facts_of_data_set(sources: Sources, key: Literal["classes", "palette"]) -> Any:
    """Return what the config's test set says about its classes, None where it says nothing."""
    data_set = _innermost(sources.settings.get("test_dataloader", {}).get("dataset", {}))
    found = data_set.get("metainfo", {}).get(key)
    if found is None and "type" in data_set:
        with DATASETS.switch_scope_and_registry(None) as registry:  # of the package in use
            found = getattr(registry.get(data_set["type"]), "METAINFO", {}).get(key)
    return found


def _meta(saved: Mapping[str, Any]) -> Mapping[str, Any]:
    meta = saved.get("meta")
    return meta if isinstance(meta, Mapping) else {}


def require_kind(
    kind: Kind,
    saved: Mapping[str, Any],
    origin: str,
    *,
    commands: Mapping[Kind, str] = COMMANDS,
) -> None:
    """Refuse the weights of another kind of model, before its config is even looked for.

    Args:
        kind: what they are to make.
        saved: the checkpoint's content.
        origin: where it is from, for the error.
        commands: what takes each kind, for the error.

    Raises:
        ValueError: they are of the other kind.
    """
    weights = saved.get("state_dict", saved)
    keys = [str(key).removeprefix("module.") for key in weights] if weights else []
    # A model of neither kind, or one whose head has other names, is left to the comparison of keys.
    found = {other for other, heads in _HEADS.items() if any(k.startswith(heads) for k in keys)}
    if found and kind not in found:
        (other,) = found  # there are two kinds
        raise ValueError(
            f"expected the checkpoint of a {kind}, got that of a {other} in {origin}; "
            f"`{commands[other]}` takes it"
        )


def _saved_settings(
    kind: Kind, meta: Mapping[str, Any], checkpoint: str | Path, cfg_options: Mapping[str, Any]
) -> Config:
    if cfg_options:
        raise ValueError(
            f"expected a config to override, got {', '.join(cfg_options)} and the config that "
            f"{checkpoint} holds; give --config FILE"
        )
    text = meta.get("cfg")
    if not isinstance(text, str):
        # What this one wrote stands under another key.
        old = {"detector": "mmdet 2.x", "segmentor": "mmseg 0.x"}[kind]
        found = f"the config of {old}" if isinstance(meta.get("config"), str) else "none"
        raise ValueError(
            f"expected a config, or a checkpoint that mmengine wrote with its own, got "
            f"{checkpoint} with {found}; give --config FILE"
        )
    return read_saved_config(text, origin=str(checkpoint))


def _innermost(data_set: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the data set that reads files: the first one within those that join or repeat."""
    while "dataset" in data_set or "datasets" in data_set:
        data_set = data_set["dataset"] if "dataset" in data_set else data_set["datasets"][0]
    return data_set


def _in_memory(pipeline: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the transforms for an image in memory: nothing is read, nothing is annotated."""
    if not pipeline or type_name(pipeline[0]) not in LOADERS:
        raise ValueError(
            "expected a pipeline that starts with LoadImageFromFile, got "
            f"{[step.get('type') for step in pipeline]}"
        )
    # Other arguments of the loader are about reading files.
    loader: dict[str, Any] = {"type": "LoadImageFromNDArray"}
    if "to_float32" in pipeline[0]:
        loader["to_float32"] = pipeline[0]["to_float32"]
    return [loader, *map(_without_annotations, filter(_is_for_images, pipeline[1:]))]


def _without_annotations(step: Mapping[str, Any]) -> dict[str, Any]:
    """Return a transform as it is, or one of test-time augmentation with the same alternatives."""
    if not isinstance(step.get("transforms"), Sequence):
        return dict(step)
    rows = [[way for way in row if _is_for_images(way)] for row in step["transforms"]]
    return {**step, "transforms": [row for row in rows if row]}


def _is_for_images(step: Mapping[str, Any]) -> bool:
    return not type_name(step).endswith(ANNOTATIONS)


def _require_finite(model: nn.Module, origin: str) -> None:
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            raise ValueError(f"expected finite weights, got NaN or infinity in {origin}: {name}")


def _is_out_of_memory(error: RuntimeError) -> bool:
    # On a CPU PyTorch has no error of its own for it.
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
