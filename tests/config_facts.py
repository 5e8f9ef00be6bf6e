"""What a config decides, under the same names for the original's 2022 fields and for today's.

Shared by the tasks: the original's configs, ours, and how facts are compared. Each task's
``config_facts.py`` turns fields into facts. Every field of the original must be translated: one
that is unknown is an error.
"""

from __future__ import annotations

import copy
import dataclasses
import fnmatch
import functools
import gzip
import json
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import BaseModel, revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from internimage.variants import get_variant

ROOT = Path(__file__).resolve().parents[1]
FIXTURES = Path(__file__).parent / "fixtures" / "configs"
ABSENT = "absent"
NOT_LEAVES = ("_base_", "digit_scenes")
"""Folders of configs that have nothing to do with the original's."""

REPEATED = (
    *("train_pipeline", "test_pipeline", "img_norm_cfg", "dataset_type", "pretrained"),
    *("workflow", "resume_from", "log_level"),
)
"""Top-level fields of the original that its other fields repeat, or that say nothing."""

BACKBONE_DEFAULTS: dict[str, Any] = {
    "core_op": "DCNv3",
    "mlp_ratio": 4.0,
    "norm_layer": "LN",
    "layer_scale": None,
    "offset_scale": 1.0,
    "post_norm": False,
    "with_cp": False,
    "dw_kernel_size": None,
    "res_post_norm": False,
    "level2_post_norm": False,
    "level2_post_norm_block_ids": None,
    "center_feature_scale": False,
    "use_dcn_v4_op": False,
}


def load_originals(task: str) -> dict[str, dict[str, Any]]:
    """Return a task's configs of the original by name, ``ade20k/upernet_...``."""
    return json.loads(gzip.decompress((FIXTURES / f"{task}.json.gz").read_bytes()))


def original_names(task: str) -> set[str]:
    """Return the paths of all configs below the original's folder of a task."""
    return set((FIXTURES / f"{task}_names.txt").read_text().split())


def leaves(configs: Path) -> set[str]:
    """Return the names of our configs that a model is trained by, without those of examples."""
    paths = {path.relative_to(configs).with_suffix("") for path in configs.glob("*/*.py")}
    return {str(path) for path in paths if path.parts[0] not in NOT_LEAVES}


@functools.cache
def load_config(path: Path) -> Config:
    """Return a config; it is shared, so not to be changed."""
    return Config.fromfile(path)


def load_current(configs: Path, name: str) -> Config:
    """Return our config of a name below a folder; it is shared, so not to be changed."""
    return load_config(configs / f"{name}.py")


def build_without_storage(configs: Path, name: str) -> nn.Module:
    """Return the model of a config of ours at its full size, on the meta device."""
    return build_on_meta(load_current(configs, name))


def build_on_meta(config: Config) -> nn.Module:
    """Return the model of a config at its full size, on the meta device."""
    init_default_scope(config.default_scope)
    with torch.device("meta"):
        return MODELS.build(copy.deepcopy(config.model))  # mmdet's models change theirs


def build_as_if_trained(config: Config) -> BaseModel:
    """Return the model of a config on the CPU, initialised, and with noise on every weight."""
    init_default_scope(config.default_scope)
    torch.manual_seed(0)
    # On one process synchronised batch norm is the ordinary one, and that runs on a CPU.
    model = revert_sync_batchnorm(MODELS.build(config.model))
    model.init_weights()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            # A weight that starts at zero hides what stands before it; a trained one does not.
            if key.endswith("weight") or ".gamma" in key:
                parameter += 0.02 * torch.randn_like(parameter)
    return model


def taken(fields: dict[str, Any], what: str) -> None:
    """Fail if a field of the original was left over."""
    assert not fields, f"{what}: no translation of {sorted(fields)}"


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return ``{"a.b.0.c": leaf}``; lists without dicts in them are leaves, as are pipelines."""
    if isinstance(value, dict):
        items = [(str(key), item) for key, item in value.items()]
    elif (
        isinstance(value, list | tuple)
        and any(isinstance(item, dict) for item in value)
        and not prefix.endswith("pipeline")  # a step more would move all others
    ):
        items = [(str(i), item) for i, item in enumerate(value)]
    else:
        return {prefix: json.loads(json.dumps(value))}
    flat: dict[str, Any] = {}
    for key, item in items:
        flat |= flatten(item, f"{prefix}.{key}" if prefix else key)
    return flat


def original_backbone(backbone: dict[str, Any]) -> dict[str, Any]:
    """Return the facts of a backbone of the original, and of what it starts from."""
    init = backbone.pop("init_cfg", None)
    return {
        "backbone": BACKBONE_DEFAULTS | backbone,
        "init": PurePosixPath(init["checkpoint"]).stem if init else None,
    }


def current_backbone(backbone: dict[str, Any]) -> dict[str, Any]:
    """Return the facts of a backbone of ours, and of what it starts from."""
    init = backbone.pop("init_cfg", None)
    row = get_variant(backbone.pop("arch")).to_kwargs()
    del row["use_clip_projector"]
    return {
        "backbone": BACKBONE_DEFAULTS | row | backbone,
        "init": init["checkpoint"] if init else None,
    }


def current_paramwise(config: dict[str, Any]) -> dict[str, Any]:
    """Return ``paramwise_cfg`` with what the original writes out and ours takes from the model."""
    paramwise = dict(config["optim_wrapper"]["paramwise_cfg"])
    if "layer_decay_rate" in paramwise:
        paramwise["depths"] = get_variant(config["model"]["backbone"]["arch"]).depths
        paramwise["num_layers"] = sum(paramwise["depths"])
    return paramwise


@dataclasses.dataclass(frozen=True)
class Difference:
    """Facts that are not the original's, in the configs that a pattern matches.

    Args:
        configs: a pattern of names.
        facts: what ours has, ``ABSENT`` if nothing; or a function of the original's config.
        reason: why.
    """

    configs: str
    facts: dict[str, Any]
    reason: str

    def expected(self, key: str, original: dict[str, Any]) -> Any:
        """Return what ours has in the place of a config of the original."""
        value = self.facts[key]
        return value(original) if isinstance(value, Callable) else value


def differing(original: dict[str, Any], current: dict[str, Any]) -> dict[str, Any]:
    """Return the facts of ours that are not the original's."""
    return {
        key: current.get(key, ABSENT)
        for key in original.keys() | current.keys()
        if original.get(key, ABSENT) != current.get(key, ABSENT)
    }


def listed(
    differences: Iterable[Difference],
    name: str,
    facts: dict[str, Any],
    original: dict[str, Any],
) -> dict[str, Any]:
    """Return the differences that are expected of a config, ``facts`` being the original's."""
    return {
        key: difference.expected(key, original)
        for difference in differences
        if fnmatch.fnmatch(name, difference.configs)
        for key in difference.facts
        # A field of some configs only, of those that the original gave it to.
        if difference.configs != "*" or key in facts
    }
