"""The folder of a run: what it holds, and whether it is free for a run."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError
from yacs.config import CfgNode

from classification.checkpoint import epoch_of, list_checkpoints
from internimage.files import write_atomically

METRICS, CURVES, WEIGHTS, SUMMARY = "metrics.csv", "curves.png", "model.safetensors", "summary.json"
CONFIG = "config.yaml"


def run_folder(config: CfgNode) -> Path:
    """Returns the folder of a run's files."""
    return Path(config.OUTPUT) / config.MODEL.NAME


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
            f"make_run_folder: expected a writable folder {path}, got {error.strerror}"
        ) from error
    return path


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
    others = (folder / name for name in (WEIGHTS, SUMMARY, METRICS, CURVES, CONFIG))
    return [*reversed(list_checkpoints(folder)), *(path for path in others if path.exists())]


def check_is_free(folder: Path, *, resume: str) -> None:
    """Checks that no run in the folder would be mixed with this one.

    A run that broke off before its first epoch has left its settings alone, which do not count.

    Args:
        folder: The run's folder.
        resume: MODEL.RESUME; a file in the folder goes on with the folder's run.

    Raises:
        ValueError: The folder holds another run.
    """
    results = [path for path in run_files(folder) if path.name != CONFIG]
    if not results or is_in(folder, resume):
        return
    epoch = epoch_of(results[0])
    raise ValueError(
        f"check_is_free: expected a folder without a run, got {folder}, which holds "
        + (f"a run up to epoch {epoch}; " if epoch is not None else f"{results[0].name} of a run; ")
        + (f"go on with --resume {results[0]}, " if epoch is not None else "")
        + "choose another --output, or pass --overwrite to remove that run's files"
    )


def is_in(folder: Path, resume: str) -> bool:
    """Whether a checkpoint to resume from, if any, is a file of the folder."""
    return bool(resume) and Path(resume).resolve().parent == folder.resolve()
