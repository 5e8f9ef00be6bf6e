"""Models of OpenMMLab that are small enough for tests: their configs and checkpoints on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from internimage.integrations.openmmlab.scripts.config_file import unformatted


def write_config(folder: Path, text: str, **changes: Any) -> Path:
    """Write a config whose test images are 128 pixels wide; return its path.

    Args:
        folder: where to write it.
        text: the config.
        **changes: settings to merge, keys with ``__`` for dots.
    """
    path = folder / "base.py"
    path.write_text(text)
    config = unformatted(Config.fromfile(path))
    for step in config.test_dataloader.dataset.pipeline:
        if step.type == "Resize":
            step.scale = (128, 96)
    config.merge_from_dict({key.replace("__", "."): value for key, value in changes.items()})
    target = folder / "config.py"
    config.dump(target)
    return target


def save_checkpoint(
    config_path: Path,
    target: Path,
    *,
    with_config: bool = True,
    classes: Any = None,
    palette: Any = None,
) -> Path:
    """Write a checkpoint with random weights, as mmengine's runner does; return its path.

    Args:
        config_path: of the model.
        target: the checkpoint.
        with_config: whether the config goes into it.
        classes: their names, None for none.
        palette: their colours; None makes all the same.
    """
    config = unformatted(Config.fromfile(config_path))
    init_default_scope(config.default_scope)
    torch.manual_seed(0)
    model = MODELS.build(config.model)
    meta: dict[str, Any] = {"epoch": 1, "iter": 7}
    if with_config:
        meta["cfg"] = config.pretty_text
    if classes is not None:
        palette = palette or [(220, 20, 60)] * len(classes)
        meta["dataset_meta"] = {"classes": classes, "palette": palette}
    torch.save({"meta": meta, "state_dict": model.state_dict(), "message_hub": {}}, target)
    return target
