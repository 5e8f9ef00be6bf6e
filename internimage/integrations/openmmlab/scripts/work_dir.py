"""The folder of a run: where it goes on, and what becomes of a run that was there before."""

from __future__ import annotations

import re
import time
import zipfile
from pathlib import Path

from mmengine.hooks import Hook
from mmengine.runner import Runner

from internimage.files import write_atomically
from internimage.integrations.openmmlab.scripts.records import CURVES, HISTORY, METRICS
from internimage.integrations.openmmlab.scripts.saving import LAST, STOPPED

CHECKPOINT = re.compile(r"(epoch|iter)_(\d+)\.pth")


def find_newest(work_dir: Path) -> tuple[Path | None, list[Path]]:
    """Return the newest whole checkpoint of a run and the damaged ones that are newer.

    mmengine writes down the newest one's name, but the note, or the file, may have been cut short,
    and the folder may have been moved since.
    """
    files = [path for path in work_dir.glob("*.pth") if CHECKPOINT.fullmatch(path.name)]
    stopped = work_dir / STOPPED
    files += [stopped] if stopped.is_file() else []
    # By time, as epoch_2 and iter_900 have no order among them; a copied folder may have lost the
    # times, which is what mmengine's note is for.
    files.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
    note = work_dir / LAST
    noted = work_dir / "none"
    if note.is_file():
        noted = work_dir / Path(note.read_text(encoding="utf-8", errors="replace").strip()).name
    if noted in files:
        files.remove(noted)
        files.insert(0, noted)
    damaged: list[Path] = []
    for path in files:
        if zipfile.is_zipfile(path):  # its table of contents is at the end
            return path, damaged
        damaged.append(path)
    return None, damaged


def holds_a_run(work_dir: Path) -> bool:
    """Return whether a training has left checkpoints or records in a folder."""
    return (work_dir / LAST).is_file() or (work_dir / HISTORY).is_file()


def set_aside(work_dir: Path) -> Path:
    """Move an earlier run's checkpoints and records into a sub-folder, so that nothing is lost.

    Its logs are in sub-folders of their own already.

    Returns:
        The sub-folder.
    """
    folder = work_dir / f"before_{time.strftime('%Y%m%d_%H%M%S')}"
    folder.mkdir(exist_ok=True)
    for path in sorted(work_dir.iterdir()):
        if path.is_file() and (
            path.suffix == ".pth" or path.name in (LAST, HISTORY, METRICS, CURVES)
        ):
            path.rename(folder / path.name)
    return folder


class SetAsideHook(Hook):
    """Makes room for a run that starts where another one was, once all checks are behind it.

    Args:
        config: The file of the work dir that the runner writes the config to. It does so before
            anything is checked: what the earlier run has there is kept here from now on.
    """

    priority = "VERY_HIGH"  # before anyone writes records of the new run

    def __init__(self, config: Path) -> None:
        self.config = config
        self._earlier = config.read_bytes() if config.is_file() else None

    def before_train(self, runner: Runner) -> None:
        """Move the earlier run's files, if there are any and this is no run that goes on."""
        work_dir = Path(runner.work_dir)
        if runner.rank or runner._resume or not holds_a_run(work_dir):
            return
        folder = set_aside(work_dir)
        earlier = self._earlier
        if earlier is not None:
            write_atomically(folder / self.config.name, lambda file: file.write_bytes(earlier))
        runner.logger.info(
            f"{work_dir} held an earlier run, now in {folder}; --resume would have gone on with it"
        )
