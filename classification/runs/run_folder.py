"""The folder of a run: what it holds, and whether it is free for a run."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout
from safetensors import SafetensorError
from yacs.config import CfgNode

from classification.runs.checkpoint import BEST, list_checkpoints, place_of
from classification.runs.logs import LOG, note
from internimage.files import write_atomically

METRICS, CURVES, WEIGHTS, SUMMARY = "metrics.csv", "curves.png", "model.safetensors", "summary.json"
CONFIG = "config.yaml"
LOCK = ".lock"
EVENTS = "tensorboard"  # a folder

LOCK_SECONDS = 60.0
"""How long a run waits for the folder: the ranks of a command that was killed end within that."""

SECONDS_WITHOUT_A_WORD = 2.0


def run_folder(config: CfgNode) -> Path:
    """Returns the folder of a run's files."""
    folder = Path(config.OUTPUT) / config.MODEL.NAME
    return folder if config.TAG == "default" else folder / config.TAG


def make_run_folder(path: Path) -> Path:
    """Makes the folder of a run and tries a write in it.

    Raises:
        ValueError: The folder cannot be made or written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        write_atomically(path / "write_test", lambda file: file.write_bytes(b""))
        (path / "write_test").unlink()
    except OSError as error:
        raise ValueError(
            f"make_run_folder: expected a writable folder for --output, got {path}, "
            f"{error.strerror}"
        ) from error
    return path


def lock_run_folder(folder: Path, *, timeout: float = LOCK_SECONDS) -> FileLock:
    """Takes the folder for this process, until it ends or lets go.

    Args:
        folder: The run's folder.
        timeout: Seconds to wait for another process.

    Raises:
        ValueError: Another process trains in there.
    """
    lock = FileLock(folder / LOCK)
    with contextlib.suppress(Timeout):
        return _acquire(lock, min(timeout, SECONDS_WITHOUT_A_WORD))
    note(f"waiting for the process that trains in {folder}")
    try:
        return _acquire(lock, timeout)
    except Timeout:
        raise ValueError(
            f"lock_run_folder: expected a folder in which nobody trains, got {folder}, in which "
            f"another process does (waited {timeout:g} s); choose another --output"
        ) from None


def _acquire(lock: FileLock, timeout: float) -> FileLock:
    lock.acquire(timeout=timeout)
    return lock


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Hands ``path`` to the block that writes it, and names it if that fails.

    Raises:
        OSError: The block could not write.
    """
    try:
        yield path
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise OSError(f"cannot write {path}: {reason or error}") from error


def run_files(folder: Path) -> list[Path]:
    """Returns what a run has left in its folder: its checkpoints first, the last epoch first."""
    others = (folder / name for name in (BEST, WEIGHTS, SUMMARY, METRICS, CURVES, CONFIG))
    logs = folder.glob(LOG.format(rank="*"))
    events = (folder / EVENTS).glob("events.out.tfevents.*")
    present = (path for path in others if path.exists())
    return [*reversed(list_checkpoints(folder)), *present, *sorted(logs), *sorted(events)]


def remove_half_written(folder: Path) -> None:
    """Removes the temporary files that a killed process has left.

    Only the process that has locked the folder may: another one's would be in use.
    """
    for path in folder.glob(".*"):
        if re.fullmatch(r"\..+\.[0-9a-f]{16}\.\w+", path.name):
            path.unlink(missing_ok=True)


def holds_results(folder: Path) -> bool:
    """Whether a run has left more than settings and logs, which one that broke off early leaves."""
    early = {CONFIG, *(path.name for path in folder.glob(LOG.format(rank="*")))}
    return any(p.name not in early and p.parent == folder for p in run_files(folder))


def check_is_free(folder: Path) -> None:
    """Checks that no run in the folder would be mixed with this one.

    Raises:
        ValueError: The folder holds another run.
    """
    if not holds_results(folder):
        return
    first = run_files(folder)[0]
    place = place_of(first)
    raise ValueError(
        f"check_is_free: expected a folder without a run, got {folder}, which holds "
        + (f"a run up to {place}; " if place is not None else f"{first.name} of a run; ")
        + (f"go on with --resume {first}, " if place is not None else "")
        + "choose another --output, or pass --overwrite to remove that run's files"
    )


def is_in(folder: Path, resume: str) -> bool:
    """Whether a checkpoint to resume from, if any, is a file of the folder."""
    return bool(resume) and Path(resume).resolve().parent == folder.resolve()
