"""Where a run begins: anew, from a checkpoint that it is told, or from the newest it finds."""

from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from yacs.config import CfgNode

from classification.distributed import Ranks
from classification.engine import Engine
from classification.runs.checkpoint import (
    BEST,
    check_is_whole,
    check_same_run,
    list_checkpoints,
    load_state,
    needs_end_of_epoch,
    newest_valid,
    place_in,
    place_of,
)
from classification.runs.logs import note
from classification.runs.run_folder import SUMMARY, check_is_free, is_in
from internimage import CheckpointMetadata
from internimage.checkpoint_file import METADATA_KEY


class Start(NamedTuple):
    """What a run begins from.

    Args:
        checkpoint: A file; None begins anew.
        is_chosen: Whether the user named it, rather than TRAIN.AUTO_RESUME found it.
    """

    checkpoint: Path | None
    is_chosen: bool = False


@dataclass
class History:
    """What a run has behind it, in this process and those that it goes on from.

    Args:
        seconds: Training time so far, evaluation and saving included.
        rows: The rows of metrics.csv so far.
        best: The best evaluation so far: ``top1`` and its ``epoch``, if there was one.
        resumed_from: The file behind ``--resume`` that the run, or one that it goes on with, began
            from; "" for none.
        checkpoints: The files in the run's folder from which it could go on, the newest at the
            end. Older ones than SAVE_CKPT_NUM are removed.
        abandoned: Files of later places, from which nobody is to go on once this run has saved.
        is_complete: Whether there is nothing left to do.
    """

    seconds: float = 0.0
    rows: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, float] = field(default_factory=dict)
    resumed_from: str = ""
    checkpoints: list[Path] = field(default_factory=list)
    abandoned: list[Path] = field(default_factory=list)
    is_complete: bool = False


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
        return _checked(Start(Path(resume), is_chosen=True) if resume else Start(None), config)
    found = list_checkpoints(folder)
    if config.TRAIN.AUTO_RESUME and found:
        newest = _newest_usable(folder, config, ranks)
        # Of this command, interrupted before; or of another one, which a new --resume goes back in.
        if not resume or load_state(newest)["resumed_from"] == _absolute(resume):
            return _checked(Start(newest), config)
    if resume:
        if not is_in(folder, resume):
            check_is_free(folder)
        start = _checked(Start(Path(resume), is_chosen=True), config)
        check_is_whole(Path(resume))
        return start
    check_is_free(folder)
    return Start(None)


def _absolute(resume: str) -> str:
    return str(Path(resume).resolve())


def _checked(start: Start, config: CfgNode) -> Start:
    """Returns the start, if its settings are those of this run: before anything slow is done."""
    if start.checkpoint is None:
        return start
    try:
        check_same_run(load_state(start.checkpoint), config)
    except ValueError as error:
        if start.is_chosen:
            raise
        raise ValueError(
            f"{error}; the folder holds a run with other settings: choose another --output, or "
            "pass --overwrite to remove it"
        ) from error
    return start


def _check_classes(state: dict[str, Any], class_names: tuple[str, ...]) -> None:
    """Checks that the labels mean what they meant.

    Raises:
        ValueError: The data have other classes, or the same in another order.
    """
    saved = CheckpointMetadata.from_json(state[METADATA_KEY]).class_names or ()
    if saved != class_names:
        pairs = zip_longest(saved, class_names, fillvalue="none")
        label, (before, now) = next((i, pair) for i, pair in enumerate(pairs) if len({*pair}) > 1)
        raise ValueError(
            f"take_up: expected the {len(saved)} classes of the checkpoint in the data, got "
            f"{len(class_names)}, of which class {label} is {now} and was {before}"
        )


def _newest_usable(folder: Path, config: CfgNode, ranks: Ranks) -> Path:
    """Returns the newest whole checkpoint that these ranks and batches can go on from.

    The best one is the last resort: it may be older than others that are damaged.
    """
    best = folder / BEST
    checkpoints = [*([best] if best.exists() else []), *list_checkpoints(folder)]
    while (newest := newest_valid(checkpoints)) is not None:
        reason = needs_end_of_epoch(load_state(newest), config, world_size=ranks.world_size)
        if not reason:
            return newest
        note(f"{newest.name} is passed over, for an epoch before: {reason}")
        checkpoints = checkpoints[: checkpoints.index(newest)]
    raise ValueError(
        f"choose_start: expected a checkpoint at the end of an epoch, got none in {folder}; go on "
        "with the former ranks and batches, or pass --overwrite to remove the run"
    )


def take_up(
    start: Start, config: CfgNode, engine: Engine, class_names: tuple[str, ...], folder: Path
) -> History:
    """Lets an engine go on from the start of its run; *collective*.

    Args:
        start: What ``choose_start`` returned.
        config: The settings.
        engine: As it was built.
        class_names: Those of the data.
        folder: The run's folder.

    Returns:
        What the run has behind it.

    Raises:
        FileNotFoundError: The checkpoint is no file that this rank sees.
        ValueError: It is of another model, of other classes or place, or behind TRAIN.EPOCHS.
    """
    if start.checkpoint is None:
        return History()
    state = load_state(start.checkpoint)
    reason = needs_end_of_epoch(state, config, world_size=engine.ranks.world_size)
    if reason:
        raise ValueError(f"take_up: expected the end of an epoch in {start.checkpoint}: {reason}")
    _check_classes(state, class_names)
    engine.load_state_dict(state)
    if engine.ranks.is_main and len(state["ranks"]) != engine.ranks.world_size:
        note(
            f"{len(state['ranks'])} ranks before, {engine.ranks.world_size} from here on: the "
            "images a step, the learning rates and the number of steps follow"
        )
    chosen = start.is_chosen
    history = History(
        seconds=state["seconds"],
        rows=state["rows"],
        best=state["best"],
        resumed_from=_absolute(str(start.checkpoint)) if chosen else state["resumed_from"],
    )
    epochs_done = engine.epoch + (engine.step_in_epoch == engine.steps_per_epoch)
    is_here = is_in(folder, str(start.checkpoint))
    is_finished = is_here and (folder / SUMMARY).exists()
    history.is_complete = epochs_done == config.TRAIN.EPOCHS and is_finished
    if epochs_done > config.TRAIN.EPOCHS or (chosen and history.is_complete):
        raise ValueError(
            f"take_up: expected TRAIN.EPOCHS > epochs of the checkpoint = {epochs_done}, "
            f"got {config.TRAIN.EPOCHS}"
        )
    if is_here:
        reached = place_in(state)
        for path in list_checkpoints(folder):
            place = place_of(path)
            (history.abandoned if place and place > reached else history.checkpoints).append(path)
    return history
