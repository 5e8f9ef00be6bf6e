"""States of a run: written whole, the newest kept, taken up at the start of an epoch."""

import copy
import re
from pathlib import Path
from typing import Any

import yaml
from yacs.config import CfgNode

from classification.config import flatten, get_default_config
from internimage.checkpoint_file import open_checkpoint, write_pickle

# What a state must hold to be taken up.
KEYS = {
    *("model", "model_ema", "optimizer"),
    *("epochs_done", "seconds", "rows"),
    *("config", "world_size", "steps_per_epoch"),
}

# Settings that a run may go on with in another value than it was saved with, which then takes
# effect. All others decide on what the saved weights, averages and epochs mean.
MAY_CHANGE = {
    # How long, how fast: the schedule is the new one from the first step on.
    "TRAIN.EPOCHS",
    "TRAIN.BASE_LR",
    "TRAIN.MIN_LR",
    "TRAIN.CLIP_GRAD",
    # Where to and how often.
    "OUTPUT",
    "MODEL.NAME",
    "MODEL.RESUME",
    "PRINT_FREQ",
    "SAVE_FREQ",
    "SAVE_CKPT_NUM",
    "EVAL_FREQ",
    # Speed and memory.
    "DATA.NUM_WORKERS",
    "DATA.PIN_MEMORY",
    "TRAIN.USE_CHECKPOINT",
}


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Saves the state after an epoch.

    Args:
        path: ``ckpt_epoch_N.pth`` in the run's folder.
        state: What ``load_state`` returns: tensors, numbers, text, lists and dicts.

    Raises:
        OSError: The disk is full or read-only; ``path`` is as it was.
    """
    write_pickle(state, path)


def prune_checkpoints(checkpoints: list[Path], *, num_kept: int) -> None:
    """Removes the first of a run's checkpoints, from the disk and from the list.

    Args:
        checkpoints: Those that the run may remove, the newest at the end.
        num_kept: How many stay.
    """
    for old in checkpoints[:-num_kept]:
        old.unlink(missing_ok=True)
    del checkpoints[:-num_kept]


def epoch_of(path: Path) -> int | None:
    """Returns N for a file called ``ckpt_epoch_N.pth``, else None."""
    match = re.fullmatch(r"ckpt_epoch_(\d+)\.pth", path.name)
    return int(match[1]) if match else None


def list_checkpoints(folder: Path) -> list[Path]:
    """Returns the checkpoints in a run's folder, the last epoch at the end."""
    epochs = {path: epoch_of(path) for path in folder.glob("ckpt_epoch_*.pth")}
    numbered = {path: epoch for path, epoch in epochs.items() if epoch is not None}
    return sorted(numbered, key=numbered.__getitem__)


def load_state(path: str | Path) -> dict[str, Any]:
    """Reads a checkpoint to resume from.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged, holds code, or is no checkpoint of a run.
    """
    state, _ = open_checkpoint(path)
    if not state.keys() >= KEYS:
        raise ValueError(
            f"load_state: expected a checkpoint of a training run, got {path} "
            "(weights alone cannot be resumed)"
        )
    # The file is mapped into memory; the run goes on when it is gone.
    return copy.deepcopy(dict(state))


def check_same_run(
    state: dict[str, Any], config: CfgNode, *, world_size: int, steps_per_epoch: int
) -> None:
    """Checks that a saved state means with these settings what it meant when it was saved.

    Args:
        state: What ``load_state`` returned.
        config: The settings to go on with.
        world_size: The number of ranks to go on with.
        steps_per_epoch: Optimiser steps of an epoch of the run to go on with.

    Raises:
        ValueError: A setting outside ``MAY_CHANGE``, or one of the numbers, has changed.
    """
    # All through YAML, which makes lists of tuples.
    default, saved, given = (
        dict(flatten(yaml.safe_load(text)))
        for text in (get_default_config().dump(), state["config"], config.dump())
    )
    saved = default | saved  # a setting that is younger than the checkpoint had its default
    saved |= {"ranks": state["world_size"], "steps an epoch": state["steps_per_epoch"]}
    given |= {"ranks": world_size, "steps an epoch": steps_per_epoch}
    for key in given:
        if key not in MAY_CHANGE and given[key] != saved[key]:
            raise ValueError(
                f"check_same_run: expected {key} = {saved[key]!r} as in the checkpoint, "
                f"got {given[key]!r}"
            )
