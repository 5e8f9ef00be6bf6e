"""Checkpoints of a run: written atomically, the newest kept, resumed at the start of an epoch."""

from pathlib import Path
from typing import Any

import torch

from classification.files import write_atomically

# What a state must hold to be resumed.
KEYS = {"model", "model_ema", "optimizer", "step", "epochs_done", "seconds", "rows"}


def save_checkpoint(path: Path, state: dict[str, Any], *, num_kept: int) -> None:
    """Saves the state after an epoch and removes the older checkpoints beside it.

    Args:
        path: ``ckpt_epoch_N.pth`` in the run's folder.
        state: What ``load_checkpoint`` returns: tensors, numbers, text, lists and dicts.
        num_kept: Checkpoints that stay, this one included.

    Raises:
        OSError: The disk is full or read-only; the older checkpoints stay.
    """
    write_atomically(path, lambda file: torch.save(state, file))
    for old in list_checkpoints(path.parent)[:-num_kept]:
        old.unlink()


def list_checkpoints(folder: Path) -> list[Path]:
    """Returns the checkpoints in a run's folder, the one that was written last at the end.

    The time counts, not the epoch: a run that starts afresh in a used folder replaces the old
    checkpoints one by one.
    """
    return sorted(folder.glob("ckpt_epoch_*.pth"), key=lambda path: path.stat().st_mtime_ns)


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Reads a checkpoint to resume from.

    Raises:
        ValueError: The file is missing, damaged, or no checkpoint of a run.
    """
    if not Path(path).is_file():
        raise ValueError(f"load_checkpoint: expected an existing file, got {path}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises half a dozen types for a damaged file
        raise ValueError(
            f"load_checkpoint: expected a whole checkpoint of a training run, got {path} "
            f"({type(error).__name__} while reading it)"
        ) from error
    if not isinstance(state, dict) or not state.keys() >= KEYS:
        raise ValueError(
            f"load_checkpoint: expected a checkpoint of a training run, got {path} "
            "(weights alone cannot be resumed)"
        )
    return state
