"""Every layout of released weights, turned into the model's own keys: pure functions.

Layouts, from the outside in:

- containers: the state dict itself, or under ``model``, ``module`` (DeepSpeed), ``state_dict``
  (OpenMMLab), with the moving average under ``model_ema``;
- prefixes: ``module.`` (data parallel), ``_orig_mod.`` (compiled), ``model.`` (Hugging Face),
  ``backbone.`` and ``img_backbone.`` (detectors, segmentors, driving: what is outside the backbone
  is left out), ``student.`` (distillation: the teacher is left out);
- names: Hugging Face's ``layer_scale1`` is ``gamma1``; the dump of the joint image-text
  pre-training holds the backbone under ``dcnv3.`` and the classifier under ``clip.``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from internimage.imagenet22k import NUM_22K_CLASSES, imagenet_1k_rows

ANCHOR = "patch_embed.conv1.weight"
"""A key that every InternImage has; its prefix is the prefix of all."""

CONTAINERS = ("model", "module", "state_dict")
EMA_CONTAINERS = ("model_ema", "state_dict_ema", "ema_state_dict")
MODULE_WRAPPERS = ("module.", "_orig_mod.")
"""Prefixes of PyTorch's own wrappers: data-parallel and compiled modules."""
WRAPPERS = (*MODULE_WRAPPERS, "model.")
"""Prefixes around a whole model: a key without them is a stranger, and reported."""
PARTS = ("backbone.", "img_backbone.", "student.")
"""Prefixes of one part of a larger model: the other parts are left out."""

_LAYER_SCALE = re.compile(r"\.layer_scale([12])$")
_JOINT_NAMES = {
    "clip.classifier_ln.weight": "fc_norm.0.weight",
    "clip.classifier_ln.bias": "fc_norm.0.bias",
    "clip.classifier.weight": "head.weight",
    "clip.classifier.bias": "head.bias",
}
_POINTS = 9
_CENTER = 4


def check_state_dict(function: str, state_dict: Mapping[str, Tensor]) -> None:
    """Check that a mapping is one of names to tensors.

    Raises:
        ValueError: it is not; the message starts with ``function``.
    """
    for key, value in state_dict.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise ValueError(
                f"{function}: expected names with a tensor each, got {key!r} with "
                f"{type(value).__name__}"
            )


def select_state_dict(content: Mapping[str, Any], *, use_ema: bool = False) -> dict[str, Tensor]:
    """Take the weights out of their container.

    Args:
        content: what the file holds.
        use_ema: take the moving average of the weights.

    Raises:
        ValueError: there are no weights, or none of the kind asked for.
    """
    names = EMA_CONTAINERS if use_ema else CONTAINERS
    for name in names:
        if isinstance(content.get(name), Mapping) and (tensors := _tensors(content[name])):
            return tensors
    ema = [name for name in EMA_CONTAINERS if isinstance(content.get(name), Mapping)]
    if use_ema:
        raise ValueError(
            f"read_checkpoint: expected {' or '.join(EMA_CONTAINERS)} for use_ema, "
            f"got {_some(list(content))}"
        )
    if tensors := _tensors(content):
        return tensors
    hint = f" (the file holds {ema[0]}: pass use_ema=True)" if ema else ""
    raise ValueError(
        f"read_checkpoint: expected weights, or {', '.join(CONTAINERS)} with them, "
        f"got {_some(list(content))}{hint}"
    )


def strip_wrappers(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take off the prefixes of :data:`MODULE_WRAPPERS` that all keys share; lose no tensor."""
    weights = dict(state_dict)
    while shared := [
        prefix
        for prefix in MODULE_WRAPPERS
        if weights and all(key.startswith(prefix) for key in weights)
    ]:
        weights = _strip(weights, shared[0], keep_others=True)
    return weights


def to_model_keys(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename any known layout to the model's own keys; unknown keys stay as they are.

    Raises:
        ValueError: two keys become one.
    """
    weights = dict(state_dict)
    if "clip.classifier.weight" in weights:
        weights = _from_joint_pretraining(weights)
    while ANCHOR not in weights:
        for prefix in WRAPPERS + PARTS:
            if prefix + ANCHOR in weights or _has_nested_anchor(weights, prefix):
                weights = _strip(weights, prefix, keep_others=prefix in WRAPPERS)
                break
        else:
            break
    weights.pop("student_proj.weight", None)
    weights.pop("student_proj.bias", None)
    return _rename(weights, lambda key: _LAYER_SCALE.sub(r".gamma\1", key))


def _has_nested_anchor(weights: Mapping[str, Tensor], prefix: str) -> bool:
    return any(key.startswith(prefix) and key.endswith("." + ANCHOR) for key in weights)


def _strip(weights: Mapping[str, Tensor], prefix: str, *, keep_others: bool) -> dict[str, Tensor]:
    kept = {k: v for k, v in weights.items() if keep_others or k.startswith(prefix)}
    return _rename(kept, lambda key: key.removeprefix(prefix))


def _rename(weights: Mapping[str, Tensor], new_name: Callable[[str], str]) -> dict[str, Tensor]:
    old_names: dict[str, str] = {}
    for key in weights:
        first = old_names.setdefault(new_name(key), key)
        if first != key:
            raise ValueError(
                f"load_checkpoint: expected one tensor for {new_name(key)}, got {first} and {key}"
            )
    return {new: weights[old] for new, old in old_names.items()}


def _from_joint_pretraining(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    chosen = {
        key: value
        for key, value in weights.items()
        if ("dcnv3" in key or "clip_projector" in key) and "mm_dcnv3" not in key
    }
    chosen = _rename(chosen, lambda key: key.replace("dcnv3.", ""))
    return chosen | {new: weights[old] for old, new in _JOINT_NAMES.items() if old in weights}


def count_classes(state_dict: Mapping[str, Tensor]) -> int | None:
    """Return the number of classes of a classifier; None without a last linear layer.

    Raises:
        ValueError: its bias is no vector, or an empty one.
    """
    bias = state_dict.get("head.bias")
    if bias is None:
        return None
    if bias.ndim != 1 or not bias.numel():
        raise ValueError(
            f"load_checkpoint: expected head.bias of shape (classes,), got {tuple(bias.shape)}"
        )
    return bias.shape[0]


def select_1k_head(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Keep the 1,000 ImageNet-1k rows of a classifier of 21,841.

    Raises:
        ValueError: the classifier has another size.
    """
    weights = dict(state_dict)
    rows = torch.tensor(imagenet_1k_rows())
    for key in ("head.weight", "head.bias"):
        if key not in weights or weights[key].shape[:1] != (NUM_22K_CLASSES,):
            got = tuple(weights[key].shape) if key in weights else "none"
            raise ValueError(f"select_1k_head: expected {key} of {NUM_22K_CLASSES} rows, got {got}")
        weights[key] = weights[key][rows]
    return weights


def drop_center_points(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Remove the middle of the 9 sampling points, for ``remove_center``."""
    weights = dict(state_dict)
    for key, value in weights.items():
        values_a_point = _values_a_point(key)
        if values_a_point and value.ndim and value.shape[0] % (_POINTS * values_a_point) == 0:
            # (G * 9 * values, ...) -> (G, 9, values, ...), the order of the operator's channels
            points = value.unflatten(0, (-1, _POINTS, values_a_point))
            kept = torch.cat([points[:, :_CENTER], points[:, _CENTER + 1 :]], dim=1)
            weights[key] = kept.flatten(0, 2)
    return weights


def has_center_points(state_dict: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> bool:
    """Whether the weights sample 9 points where a model with these shapes samples 8."""
    return any(
        _values_a_point(key)
        and key in shapes
        and value.ndim > 0
        and 0 < value.shape[0] * (_POINTS - 1) == shapes[key][0] * _POINTS
        for key, value in state_dict.items()
    )


def _values_a_point(key: str) -> int:
    """How many values a sampling point has in this tensor; 0 if it is no offset and no mask."""
    if ".dcn.offset." in key:
        return 2
    return 1 if ".dcn.mask." in key else 0


def _tensors(content: Mapping[str, Any]) -> dict[str, Tensor]:
    tensors = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    check_state_dict("read_checkpoint", tensors)
    return tensors


def _some(names: list[str]) -> str:
    shown = ", ".join(map(str, names[:5])) or "nothing"
    return shown + (f" and {len(names) - 5} more" if len(names) > 5 else "")
