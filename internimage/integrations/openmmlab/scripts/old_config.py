"""Configs of OpenMMLab's generation of 2022 (mmdet 2.x, mmseg 0.x): recognised, never read."""

from __future__ import annotations

import ast
from collections.abc import Collection
from pathlib import Path

# The names that only the old generation reads, and where their content is today.
_OLD_KEYS = {
    "data": "train_dataloader, val_dataloader, test_dataloader",
    "evaluation": "val_evaluator, test_evaluator, train_cfg.val_interval",
    "optimizer": "optim_wrapper.optimizer",
    "optimizer_config": "optim_wrapper.clip_grad",
    "lr_config": "param_scheduler",
    "momentum_config": "param_scheduler",
    "runner": "train_cfg",
    "total_epochs": "train_cfg.max_epochs",
    "total_iters": "train_cfg.max_iters",
    "checkpoint_config": "default_hooks.checkpoint",
    "log_config": "default_hooks.logger, visualizer",
    "dist_params": "env_cfg.dist_cfg",
    "opencv_num_threads": "env_cfg.mp_cfg",
    "mp_start_method": "env_cfg.mp_cfg",
    "cudnn_benchmark": "env_cfg.cudnn_benchmark",
    "fp16": "--amp",
    "resume_from": "--resume",
    "workflow": "train_cfg",
    "img_norm_cfg": "model.data_preprocessor",
}
_OLD_TRANSFORMS = {
    "MultiScaleFlipAug": "a plain test pipeline, tta_pipeline",
    "DefaultFormatBundle": "PackDetInputs, PackSegInputs",
    "ImageToTensor": "PackDetInputs, PackSegInputs",
}
_TODAY = frozenset(
    {
        "train_dataloader",
        "val_dataloader",
        "test_dataloader",
        "optim_wrapper",
        "train_cfg",
        "param_scheduler",
        "val_evaluator",
        "test_evaluator",
        "default_hooks",
        "env_cfg",
    }
)
# Helper variables of these names are common in configs of today.
_HELPERS = frozenset({"optimizer", "img_norm_cfg", "resume_from", "fp16", "workflow"})


def old_keys() -> dict[str, str]:
    """Return the old generation's keys and what they are called today."""
    return dict(_OLD_KEYS)


def check_generation(
    path: Path, *, keys: Collection[str] | None = None, configs: Path | None = None
) -> None:
    """Refuse a config of the old generation, before anything of it is run.

    Args:
        path: The file.
        keys: The keys of the whole config, once it has been read; None reads the file's own names
            without running it.
        configs: Folder of today's configs, to name the one of the same name.

    Raises:
        ValueError: The config is an old one; the message has the new name of every old key.
    """
    transforms: set[str] = set()
    if keys is not None:
        found = [key for key in _OLD_KEYS if key in keys and key not in _HELPERS]
    else:
        names, transforms = _names_and_strings(path)
        found = [key for key in _OLD_KEYS if key in names]
        # A file with no name of today's may be a whole config of before, or a part that another
        # one inherits: only in the first are these names more than helpers.
        if names & _TODAY:
            found = [key for key in found if key not in _HELPERS]
        elif set(found) <= _HELPERS - {"optimizer"}:
            found = []
    if not found and not transforms:
        return
    words = [f"{key} -> {_OLD_KEYS[key]}" for key in found]
    words += [f"{name} -> {_OLD_TRANSFORMS[name]}" for name in sorted(transforms)]
    same = [file for file in sorted(configs.rglob(path.name)) if file != path] if configs else []
    instead = f"use {_shown(same[0])}, or rename" if same else "rename"
    raise ValueError(
        f"expected a config of today's OpenMMLab (mmdet 3, mmseg 1), got {path} of the generation "
        f"of 2022 (mmdet 2, mmseg 0); {instead}: {'; '.join(words)}"
    )


def _names_and_strings(path: Path) -> tuple[set[str], set[str]]:
    """Return the names that a file assigns at its top, and the old transforms that it names."""
    if path.suffix != ".py":
        return set(), set()  # JSON and YAML run nothing: their keys are looked at afterwards
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError):
        return set(), set()  # the reader says what is wrong
    names = {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    strings = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    return names, strings & set(_OLD_TRANSFORMS)


def _shown(path: Path) -> str:
    """Return a path as it would be typed here."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
