"""What a run says: lines on the first rank's console, and in each rank's file."""

import logging
import warnings
from pathlib import Path

from classification.distributed import Ranks

LOG = "log_rank{rank}.txt"
LOGGER = logging.getLogger("internimage.classification")
LOGGER.addHandler(logging.NullHandler())  # before a file is open, the console is enough


def open_log(folder: Path, ranks: Ranks) -> None:
    """Lets LOGGER append to this rank's file in the run's folder, warnings included.

    Raises:
        OSError: The file cannot be written.
    """
    close_log()
    handler = logging.FileHandler(folder / LOG.format(rank=ranks.rank), encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False  # the console has its own, shorter lines


def close_log() -> None:
    """Closes the file of ``open_log``."""
    for handler in list(LOGGER.handlers):
        if isinstance(handler, logging.FileHandler):
            LOGGER.removeHandler(handler)
            handler.close()


def note(text: str) -> None:
    """Warns on the console, if this is the first rank, and in this rank's file."""
    LOGGER.warning("%s", text)
    warnings.warn(text, stacklevel=2)
