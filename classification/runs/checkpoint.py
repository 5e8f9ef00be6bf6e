"""States of a run on the disk: written whole, the newest valid one found, old ones removed.

A run folder holds ``ckpt_epoch_N.pth`` (after epoch N), ``ckpt_epoch_N_step_M.pth`` (in epoch N,
after its step M; with SAVE_STEPS or after a request to stop) and ``ckpt_epoch_best.pth``.
"""

import os
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from yacs.config import CfgNode

from classification.config import flatten, get_default_config
from classification.runs.logs import note
from internimage.checkpoint_file import open_checkpoint, write_pickle
from internimage.files import write_atomically

BEST = "ckpt_epoch_best.pth"

# What a state must hold to be taken up.
KEYS = {
    *("model", "model_ema", "optimizer", "scaler", "ranks"),
    *("epoch", "step_in_epoch", "seconds", "rows", "best"),
    *("config", "steps_per_epoch", "resumed_from"),
}

# Settings that a run may go on with in another value than it was saved with, which then takes
# effect. All others decide on what the saved weights, averages and epochs mean.
MAY_CHANGE = {
    # How long, how fast: the schedule is the new one from the first step on.
    "TRAIN.EPOCHS",
    "TRAIN.BASE_LR",
    "TRAIN.MIN_LR",
    "TRAIN.CLIP_GRAD",
    # Where to, where from and how often.
    "OUTPUT",
    "TAG",
    "MODEL.NAME",
    "MODEL.RESUME",
    "MODEL.PRETRAINED",
    "DATA.DATA_PATH",
    "DATA.MAX_BAD_SHARE",
    "LOGGER",
    "PRINT_FREQ",
    "SAVE_FREQ",
    "SAVE_STEPS",
    "SAVE_CKPT_NUM",
    "EVAL_FREQ",
    "EVAL_MODE",
    "THROUGHPUT_MODE",
    "TRAIN.AUTO_RESUME",
    # Speed and memory; every strategy takes up the states of every other.
    "DATA.NUM_WORKERS",
    "DATA.PIN_MEMORY",
    "TRAIN.USE_CHECKPOINT",
    "TRAIN.CHANNELS_LAST",
    "TRAIN.COMPILE",
    "TRAIN.STRATEGY",
    "TRAIN.ZERO_STAGE",
    "TRAIN.OFFLOAD_OPTIMIZER",
    "TRAIN.OFFLOAD_PARAM",
    "TRAIN.DEEPSPEED_CONFIG",
    "TRAIN.OPTIMIZER.USE_ZERO",
}

# Settings that may change as well, but only between two epochs, as the number of ranks.
MAY_CHANGE_BETWEEN_EPOCHS = {"DATA.BATCH_SIZE", "TRAIN.ACCUMULATION_STEPS"}


class Place(NamedTuple):
    """Where in a run a checkpoint was made; later ones compare greater.

    Args:
        epoch: The epoch, counted from 1.
        step: Steps of it that are made; infinite where it is complete.
    """

    epoch: int
    step: float

    @property
    def is_end_of_epoch(self) -> bool:
        """Whether the epoch is complete."""
        return self.step == float("inf")

    def __str__(self) -> str:
        step = "" if self.is_end_of_epoch else f", step {self.step:.0f}"
        return f"epoch {self.epoch}{step}"


def checkpoint_name(epoch: int, step: int | None = None) -> str:
    """Returns the file's name after an epoch (counted from 1), or after a step of it."""
    return f"ckpt_epoch_{epoch}.pth" if step is None else f"ckpt_epoch_{epoch}_step_{step}.pth"


def place_of(path: Path) -> Place | None:
    """Returns the place that the name of a checkpoint tells, None for other files."""
    match = re.fullmatch(r"ckpt_epoch_(\d+)(?:_step_(\d+))?\.pth", path.name)
    if match is None:
        return None
    return Place(int(match[1]), float("inf") if match[2] is None else int(match[2]))


def list_checkpoints(folder: Path) -> list[Path]:
    """Returns the checkpoints in a run's folder, the last place at the end, without the best."""
    places = {path: place_of(path) for path in folder.glob("ckpt_epoch_*.pth")}
    placed = {path: place for path, place in places.items() if place is not None}
    return sorted(placed, key=placed.__getitem__)


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Saves the state of a run.

    Args:
        path: A name of ``checkpoint_name`` in the run's folder.
        state: What ``load_state`` returns: tensors, numbers, text, lists and dicts.

    Raises:
        OSError: The disk is full or read-only; ``path`` is as it was.
    """
    write_pickle(state, path)


def keep_as_best(path: Path) -> None:
    """Lets ``ckpt_epoch_best.pth`` beside a checkpoint have its content, without a copy if it can.

    Raises:
        OSError: The disk is full or read-only; the best is as it was.
    """

    def write(file: Path) -> None:
        file.unlink()
        try:
            os.link(path, file)
        except OSError:  # a file system without hard links
            shutil.copyfile(path, file)

    write_atomically(path.with_name(BEST), write)


def prune_checkpoints(checkpoints: list[Path], *, num_kept: int) -> None:
    """Removes the first of a run's checkpoints, from the disk and from the list.

    The newest one at the end of an epoch stays in any case: other ranks can go on from there alone.

    Args:
        checkpoints: Those that the run may remove, the newest at the end.
        num_kept: How many stay.
    """
    ends = [path for path in checkpoints if (place := place_of(path)) and place.is_end_of_epoch]
    for old in checkpoints[:-num_kept]:
        if old not in ends[-1:]:
            old.unlink(missing_ok=True)
            checkpoints.remove(old)


def load_state(path: str | Path) -> dict[str, Any]:
    """Reads a checkpoint to resume from; its tensors are mapped into memory.

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
    return dict(state)


def check_is_whole(path: Path) -> None:
    """Reads a checkpoint from end to end and compares its checksums.

    Raises:
        OSError: The disk does not answer, which says nothing of the file.
        ValueError: The file is damaged or is no checkpoint of a run.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except zipfile.BadZipFile as error:
        raise ValueError(
            f"check_is_whole: expected a whole checkpoint, got {path}, cut off ({error})"
        ) from error
    if damaged is not None:
        raise ValueError(
            f"check_is_whole: expected a whole checkpoint, got {path} with damaged bytes"
        )
    load_state(path)


def newest_valid(checkpoints: list[Path]) -> Path | None:
    """Returns the last of the checkpoints that is whole, and warns about later ones.

    Raises:
        OSError: The disk does not answer.
        ValueError: There are checkpoints, and all are damaged.
    """
    for path in reversed(checkpoints):
        try:
            check_is_whole(path)
        except ValueError as error:
            note(f"a damaged checkpoint is skipped: {error}")
        else:
            return path
    if checkpoints:
        raise ValueError(
            f"newest_valid: expected a whole checkpoint, got only damaged ones in "
            f"{checkpoints[0].parent}; restore one, or pass --overwrite to remove them and train "
            "anew"
        )
    return None


def place_in(state: dict[str, Any]) -> Place:
    """Returns the place of a state, whatever its file is called."""
    is_end = state["step_in_epoch"] == state["steps_per_epoch"]
    return Place(state["epoch"] + 1, float("inf") if is_end else state["step_in_epoch"])


def needs_end_of_epoch(state: dict[str, Any], config: CfgNode, *, world_size: int) -> str:
    """Returns why a state made within an epoch cannot be gone on with; "" if it can.

    The order of the images within an epoch depends on ranks and batches.

    Args:
        state: What ``load_state`` returned.
        config: The settings to go on with.
        world_size: The number of ranks to go on with.
    """
    if place_in(state).is_end_of_epoch:
        return ""
    saved, given = _settings_of(state), _settings(config.dump())
    saved["ranks"], given["ranks"] = len(state["ranks"]), world_size
    differ = [f"{key} was {saved[key]} and is {given[key]}"
              for key in ("ranks", *sorted(MAY_CHANGE_BETWEEN_EPOCHS))
              if saved[key] != given[key]]  # fmt: skip
    return f"made within an epoch, when {', '.join(differ)}" if differ else ""


def check_same_run(state: dict[str, Any], config: CfgNode) -> None:
    """Checks that a saved state means with these settings what it meant when it was saved.

    Args:
        state: What ``load_state`` returned.
        config: The settings to go on with.

    Raises:
        ValueError: A setting has changed that is not among ``MAY_CHANGE`` and
            ``MAY_CHANGE_BETWEEN_EPOCHS``.
    """
    saved, given = _settings_of(state), _settings(config.dump())
    for key in given:
        may_change = key in MAY_CHANGE or key in MAY_CHANGE_BETWEEN_EPOCHS
        if not may_change and given[key] != saved[key]:
            raise ValueError(
                f"check_same_run: expected {key} = {saved[key]!r} as in the checkpoint, "
                f"got {given[key]!r}"
            )


def _settings(text: str) -> dict[str, Any]:
    """Returns dotted keys and values from YAML, which makes lists of tuples."""
    return dict(flatten(yaml.safe_load(text)))


def _settings_of(state: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings of a state; one younger than the checkpoint had its default."""
    return _settings(get_default_config().dump()) | _settings(state["config"])
