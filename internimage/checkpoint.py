"""Load and save weights: any released layout in, safetensors or ``.pth`` out."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from internimage.checkpoint_file import open_checkpoint, write_checkpoint
from internimage.checkpoint_layouts import (
    ANCHOR,
    check_state_dict,
    drop_center_points,
    has_center_points,
    select_1k_head,
    select_state_dict,
    strip_wrappers,
    to_model_keys,
)
from internimage.heads import HEAD_PREFIXES
from internimage.hub import RELEASED, download, find_release
from internimage.imagenet22k import NUM_22K_CLASSES
from internimage.metadata import CheckpointMetadata
from internimage.model import InternImage
from internimage.variants import unknown_name

META_PREFIXES = ("meta_head_1.", "meta_head_2.", "meta_norm.", "meta_head.")
"""Keys of the MetaFormer head beyond those of the image's head."""

CLASSIFIER_PREFIXES = ("head.", "meta_head.")
"""Keys of the last linear layers."""

SHOWN_KEYS = 8
"""How many keys of each kind an error names; :class:`LoadReport` has all."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a file holds, with the model's own keys.

    Args:
        state_dict: weights by key.
        metadata: model, classes and preprocessing, if the file says.
    """

    state_dict: dict[str, Tensor]
    metadata: CheckpointMetadata | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoadReport:
    """What a load did.

    Args:
        loaded: keys that were loaded.
        missing: keys of the model that the checkpoint lacks.
        unexpected: keys of the checkpoint that the model lacks.
        mismatched: keys of both with different shapes: key, checkpoint's shape, model's shape.
        adaptations: what was changed to fit, in words.
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    adaptations: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether model and checkpoint agree in every key and shape."""
        return not (self.missing or self.unexpected or self.mismatched)

    def describe(self) -> str:
        """Say which keys differ, a few of each kind by name."""
        shapes = [f"{key} {found} for {wanted}" for key, found, wanted in self.mismatched]
        kinds = {
            "missing": list(self.missing),
            "unexpected": list(self.unexpected),
            "wrong-shaped": shapes,
        }
        return "; ".join(
            f"{len(keys)} {kind}: "
            f"{', '.join(keys[:SHOWN_KEYS])}{', ...' * (len(keys) > SHOWN_KEYS)}"
            for kind, keys in kinds.items()
            if keys
        )


def read_checkpoint(path: str | Path, *, use_ema: bool = False) -> Checkpoint:
    """Read a checkpoint of any layout.

    Args:
        path: the file.
        use_ema: take the moving average that a training checkpoint holds beside the weights.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is broken, holds code, holds no weights of the kind asked for, or its
            metadata is broken.
    """
    content, metadata = open_checkpoint(path)
    return Checkpoint(
        state_dict=to_model_keys(select_state_dict(content, use_ema=use_ema)),
        metadata=None if metadata is None else CheckpointMetadata.from_json(metadata),
    )


def load_checkpoint(
    model: nn.Module,
    path_or_name: str | Path,
    strict: bool = True,
    *,
    use_ema: bool = False,
    reset_head: bool = False,
) -> LoadReport:
    """Load weights from a file or a released model's name.

    A 21,841-class head becomes one of 1,000 classes if that is what the model has; a model without
    a middle sampling point takes weights with one; a model without a head, or without its last
    linear layer (``num_classes=0``), leaves the checkpoint's alone. The report says so.

    Args:
        model: what to load into: an InternImage, or any module that was saved by
            :func:`save_checkpoint`.
        path_or_name: a file, or a name of ``list_models()``, which is downloaded.
        strict: raise unless every key and shape agrees. Otherwise load what fits and warn about the
            rest.
        use_ema: take the moving average of the weights.
        reset_head: leave the last linear layer as it is, whatever the checkpoint holds.

    Raises:
        FileNotFoundError: neither a file nor a released name.
        ConnectionError: a released name, and no way to download it.
        ValueError: the file is unreadable, keys differ under ``strict``, or not one key fits.
    """
    content, _ = open_checkpoint(_find(path_or_name))
    weights = select_state_dict(content, use_ema=use_ema)
    return load_weights(model, weights, strict, reset_head=reset_head, origin=str(path_or_name))


def load_weights(
    model: nn.Module,
    state_dict: Mapping[str, Tensor],
    strict: bool = True,
    *,
    reset_head: bool = False,
    origin: str = "state_dict",
) -> LoadReport:
    """Load a state dict of any layout; as :func:`load_checkpoint`, for weights already in memory.

    Args:
        model: what to load into.
        state_dict: the weights.
        strict: raise unless every key and shape agrees.
        reset_head: leave the last linear layer as it is.
        origin: how errors call the weights.

    Raises:
        ValueError: keys differ under ``strict``, not one key fits, or ``state_dict`` is no mapping
            of names to tensors.
    """
    model = _unwrap(model)
    # extra state (get_extra_state) is no weight
    target = {k: v for k, v in model.state_dict().items() if isinstance(v, Tensor)}
    shapes = {key: value.shape for key, value in target.items()}
    check_state_dict("load_checkpoint", state_dict)
    # A module around a backbone has keys of its own; the layouts are those of the backbone alone.
    known = to_model_keys(state_dict) if ANCHOR in shapes else strip_wrappers(state_dict)
    weights, adaptations = _adapt(model, known, shapes)
    left_out: set[str] = set()
    if reset_head:
        left_out = {key for key in shapes if key.startswith(CLASSIFIER_PREFIXES)}
        weights = {k: v for k, v in weights.items() if not k.startswith(CLASSIFIER_PREFIXES)}
        adaptations.append("last linear layer left as it was")

    # In the model's order, so that reports name the first layers first.
    weights = {k: weights[k] for k in shapes if k in weights} | weights
    fitting = {k: v for k, v in weights.items() if k in shapes and v.shape == shapes[k]}
    for key, value in fitting.items():
        if value.layout != torch.strided or (
            value.is_floating_point() != target[key].is_floating_point()
        ):
            raise ValueError(
                f"load_checkpoint: expected dense numbers as the model's {target[key].dtype} in "
                f"{key}, got {value.dtype}, {value.layout}, in {origin}"
            )
    report = LoadReport(
        loaded=tuple(fitting),
        missing=tuple(k for k in shapes if k not in weights and k not in left_out),
        unexpected=tuple(k for k in weights if k not in shapes),
        mismatched=tuple(
            (k, tuple(v.shape), tuple(shapes[k]))
            for k, v in weights.items()
            if k in shapes and v.shape != shapes[k]
        ),
        adaptations=tuple(adaptations),
    )
    if not report.complete:
        if strict:
            raise ValueError(
                f"load_checkpoint: expected the keys and shapes of the model, got {origin} with "
                f"{report.describe()}"
            )
        if not fitting:
            raise ValueError(
                f"load_checkpoint: expected at least one key of the model, got {origin} with "
                f"{report.describe()}"
            )
        warnings.warn(
            f"load_checkpoint: {len(fitting)} of {len(shapes)} keys loaded from {origin}; "
            f"{report.describe()}",
            stacklevel=3,
        )
    model.load_state_dict(fitting, strict=False)
    return report


def save_checkpoint(
    model: nn.Module | Mapping[str, Tensor],
    path: str | Path,
    *,
    metadata: CheckpointMetadata | None = None,
) -> None:
    """Save all weights of a model, whole or not at all.

    Args:
        model: any module or state dict. Data-parallel and compiled wrappers are seen through: the
            prefixes ``module.`` and ``_orig_mod.`` come off where every key has them.
        path: ``*.safetensors`` or ``*.pth``.
        metadata: model, classes and preprocessing, so that ``internimage predict`` needs the file
            alone.

    Raises:
        ValueError: another suffix, or not a mapping of names to tensors.
    """
    weights = model.state_dict() if isinstance(model, nn.Module) else model
    check_state_dict("save_checkpoint", weights)
    write_checkpoint(
        strip_wrappers(weights), path, None if metadata is None else metadata.to_json()
    )


def _unwrap(model: nn.Module) -> nn.Module:
    """See through data-parallel (``module``) and compiled (``_orig_mod``) wrappers."""
    children = dict(model.named_children())
    for name in ("module", "_orig_mod"):
        if list(children) == [name]:
            return _unwrap(children[name])
    return model


def _adapt(
    model: nn.Module, weights: dict[str, Tensor], shapes: Mapping[str, torch.Size]
) -> tuple[dict[str, Tensor], list[str]]:
    """Fit weights to a model where a rule says how; say what was done."""
    done: list[str] = []
    if isinstance(model, InternImage) and model.num_classes == 0:
        prefixes = (*(HEAD_PREFIXES if model.features_only else ("head.",)), *META_PREFIXES)
        kept = {key: value for key, value in weights.items() if not key.startswith(prefixes)}
        if len(kept) < len(weights):
            done.append("head left out")
        weights = kept
    head = weights.get("head.bias")
    has_22k_classes = head is not None and head.shape == (NUM_22K_CLASSES,)
    if has_22k_classes and shapes.get("head.bias") == (1000,):
        weights = select_1k_head(weights)
        done.append("1,000 of 21,841 classes selected")
    if has_center_points(weights, shapes):
        weights = drop_center_points(weights)
        done.append("middle sampling points removed")
    return weights, done


def _find(path_or_name: str | Path) -> Path:
    path = Path(path_or_name)
    if path.is_file():
        return path
    name = str(path_or_name)
    if find_release(name) is not None:
        return download(name)
    if path.suffix or len(path.parts) > 1 or path.exists():
        raise FileNotFoundError(f"load_checkpoint: expected an existing file, got {name}")
    raise FileNotFoundError(unknown_name("load_checkpoint", name, list(RELEASED)))
