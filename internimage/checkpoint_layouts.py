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
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from internimage.imagenet22k import NUM_22K_CLASSES, imagenet_1k_rows

ANCHOR = "patch_embed.conv1.weight"
"""A key that every InternImage has; its prefix is the prefix of all."""

CONTAINERS = ("model", "module", "state_dict")
EMA_CONTAINERS = ("model_ema", "state_dict_ema", "ema_state_dict")
WRAPPERS = ("module.", "_orig_mod.", "model.")
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


def select_state_dict(
    content: Mapping[str, Any], *, use_ema: bool = False
) -> tuple[dict[str, Tensor], str]:
    """Take the weights out of their container.

    Args:
        content: what the file holds.
        use_ema: take the moving average of the weights.

    Returns:
        The weights, and the name of the container (``""`` for none).

    Raises:
        ValueError: there are no weights, or none of the kind asked for.
    """
    names = EMA_CONTAINERS if use_ema else CONTAINERS
    for name in names:
        if isinstance(content.get(name), Mapping) and (tensors := _tensors(content[name])):
            return tensors, name
    ema = [name for name in EMA_CONTAINERS if isinstance(content.get(name), Mapping)]
    if use_ema:
        raise ValueError(
            f"read_checkpoint: expected {' or '.join(EMA_CONTAINERS)} for use_ema, "
            f"got {_some(list(content))}"
        )
    if tensors := _tensors(content):
        return tensors, ""
    hint = f" (the file holds {ema[0]}: pass use_ema=True)" if ema else ""
    raise ValueError(
        f"read_checkpoint: expected weights, or {', '.join(CONTAINERS)} with them, "
        f"got {_some(list(content))}{hint}"
    )


def to_model_keys(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename any known layout to the model's own keys; unknown keys stay as they are."""
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
    return {_LAYER_SCALE.sub(r".gamma\1", key): value for key, value in weights.items()}


def _has_nested_anchor(weights: Mapping[str, Tensor], prefix: str) -> bool:
    return any(key.startswith(prefix) and key.endswith("." + ANCHOR) for key in weights)


def _strip(weights: Mapping[str, Tensor], prefix: str, *, keep_others: bool) -> dict[str, Tensor]:
    return {
        key.removeprefix(prefix): value
        for key, value in weights.items()
        if keep_others or key.startswith(prefix)
    }


def _from_joint_pretraining(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    chosen = {
        key.replace("dcnv3.", ""): value
        for key, value in weights.items()
        if ("dcnv3" in key or "clip_projector" in key) and "mm_dcnv3" not in key
    }
    return chosen | {new: weights[old] for old, new in _JOINT_NAMES.items() if old in weights}


def select_1k_head(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Keep the 1,000 ImageNet-1k rows of a classifier of 21,841.

    Raises:
        ValueError: the classifier has another size.
    """
    weights = dict(state_dict)
    rows = torch.tensor(imagenet_1k_rows())
    for key in ("head.weight", "head.bias"):
        if key not in weights or weights[key].shape[0] != NUM_22K_CLASSES:
            got = tuple(weights[key].shape) if key in weights else "none"
            raise ValueError(f"select_1k_head: expected {key} of {NUM_22K_CLASSES} rows, got {got}")
        weights[key] = weights[key][rows]
    return weights


def drop_center_points(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Remove the middle of the 9 sampling points, for ``remove_center``."""
    weights = dict(state_dict)
    for key, value in weights.items():
        values_a_point = _values_a_point(key)
        if values_a_point:
            # (G * 9 * values, ...) -> (G, 9, values, ...), the order of the operator's channels
            points = value.unflatten(0, (-1, _POINTS, values_a_point))
            kept = torch.cat([points[:, :_CENTER], points[:, _CENTER + 1 :]], dim=1)
            weights[key] = kept.flatten(0, 2)
    return weights


def has_center_points(state_dict: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> bool:
    """Whether the weights sample 9 points where a model with these shapes samples 8."""
    return any(
        _values_a_point(key) and key in shapes and value.shape[0] * 8 == shapes[key][0] * 9
        for key, value in state_dict.items()
    )


def _values_a_point(key: str) -> int:
    """How many values a sampling point has in this tensor; 0 if it is no offset and no mask."""
    if ".dcn.offset." in key:
        return 2
    return 1 if ".dcn.mask." in key else 0


def _tensors(content: Mapping[str, Any]) -> dict[str, Tensor]:
    return {key: value for key, value in content.items() if isinstance(value, Tensor)}


def _some(names: list[str]) -> str:
    shown = ", ".join(map(str, names[:5])) or "nothing"
    return shown + (f" and {len(names) - 5} more" if len(names) > 5 else "")
