"""Where a run begins: anew, from a checkpoint that it is told, or from the newest it finds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from yacs.config import CfgNode

from classification.distributed import Ranks
from classification.runs.checkpoint import (
    check_same_run,
    list_checkpoints,
    load_state,
    newest_valid,
    place_of,
)
from classification.runs.logs import note
from classification.runs.run_folder import SUMMARY, check_is_free, is_in

if TYPE_CHECKING:
    from classification.runs.run import Run


class Start(NamedTuple):
    """What a run begins from.

    Args:
        checkpoint: A file; None begins anew.
        is_chosen: Whether the user named it, rather than TRAIN.AUTO_RESUME found it.
    """

    checkpoint: Path | None
    is_chosen: bool = False


def choose_start(config: CfgNode, folder: Path, ranks: Ranks, overwrite: bool) -> Start:
    """Decides what to go on from; on the first rank, for all.

    Args:
        config: The settings.
        folder: The run's folder.
        ranks: This process among all.
        overwrite: A run in the folder is to be removed.

    Raises:
        FileNotFoundError: MODEL.RESUME is no file.
        ValueError: The folder holds a run that this one cannot go on with.
    """
    resume = config.MODEL.RESUME
    if overwrite:
        if is_in(folder, resume):
            raise ValueError(
                "choose_start: expected --resume or --overwrite, got both for a checkpoint in the "
                f"folder to overwrite, {folder}"
            )
        return Start(Path(resume) if resume else None, is_chosen=bool(resume))
    if resume:
        if not is_in(folder, resume):
            check_is_free(folder)
        return Start(Path(resume), is_chosen=True)
    if not config.TRAIN.AUTO_RESUME or not list_checkpoints(folder):
        check_is_free(folder)
        return Start(None)
    return Start(_newest_usable(folder, ranks))


def _newest_usable(folder: Path, ranks: Ranks) -> Path:
    """Returns the newest whole checkpoint that this number of ranks can go on from."""
    checkpoints = list_checkpoints(folder)
    while (newest := newest_valid(checkpoints)) is not None:
        state = load_state(newest)
        world_size = len(state["ranks"])
        is_end_of_epoch = state["step_in_epoch"] == state["steps_per_epoch"]
        if is_end_of_epoch or world_size == ranks.world_size:
            return newest
        note(
            f"{newest.name} was made within an epoch by {world_size} ranks; {ranks.world_size} "
            "ranks go on from the end of an epoch before"
        )
        checkpoints = checkpoints[: checkpoints.index(newest)]
    raise ValueError(
        f"choose_start: expected a checkpoint at the end of an epoch for {ranks.world_size} ranks, "
        f"got none in {folder}; go on with the former number of ranks, or pass --overwrite"
    )


def take_up(run: Run, start: Start) -> None:
    """Lets a run go on from its start; *collective*.

    Raises:
        FileNotFoundError: The checkpoint is no file.
        ValueError: It is damaged, of another run, or behind TRAIN.EPOCHS.
    """
    if start.checkpoint is None:
        return
    config, engine = run.config, run.engine
    state = load_state(start.checkpoint)
    try:
        check_same_run(
            state,
            config,
            world_size=run.ranks.world_size,
            steps_per_epoch=engine.steps_per_epoch,
        )
    except ValueError as error:
        if start.is_chosen:
            raise
        raise ValueError(
            f"{error}; the folder holds a run with other settings: choose another --output, or "
            "pass --overwrite to remove it"
        ) from error
    engine.load_state_dict(state)
    run.seconds, run.rows, run.best = state["seconds"], state["rows"], state["best"]
    epochs_done = engine.epoch + (engine.step_in_epoch == engine.steps_per_epoch)
    run.is_complete = (
        epochs_done == config.TRAIN.EPOCHS
        and is_in(run.folder, str(start.checkpoint))
        and (run.folder / SUMMARY).exists()
    )
    if epochs_done > config.TRAIN.EPOCHS or (start.is_chosen and run.is_complete):
        raise ValueError(
            f"take_up: expected TRAIN.EPOCHS > epochs of the checkpoint = {epochs_done}, "
            f"got {config.TRAIN.EPOCHS}"
        )
    if is_in(run.folder, str(start.checkpoint)):
        reached = place_of(start.checkpoint)
        for path in list_checkpoints(run.folder):
            place = place_of(path)
            is_later = reached is not None and place is not None and place > reached
            (run.abandoned if is_later else run.checkpoints).append(path)
