"""Figures of a run for TensorBoard or Weights & Biases, beside metrics.csv."""

import secrets
from pathlib import Path
from typing import Any, Protocol

from yacs.config import CfgNode

from classification.runs.run_folder import EVENTS
from internimage.files import write_atomically

WANDB_ID = "wandb_id.txt"


class Tracker(Protocol):
    """Takes figures by name."""

    def log(self, values: dict[str, float], step: int) -> None:
        """Records figures at a step of the run."""

    def close(self) -> None:
        """Writes what is still in memory."""


class NoTracker:
    """Takes figures and keeps none."""

    def log(self, values: dict[str, float], step: int) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""


class TensorBoardTracker:
    """Event files for ``tensorboard --logdir``.

    Args:
        folder: The run's folder.
        first_step: Steps made so far: what an earlier process wrote behind them is hidden.
    """

    def __init__(self, folder: Path, *, first_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder / EVENTS), purge_step=first_step + 1)

    def log(self, values: dict[str, float], step: int) -> None:
        """Records figures at a step of the run."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Writes what is still in memory."""
        self.writer.close()


class WandbTracker:
    """A run of Weights & Biases, which a resumed training goes on with.

    Args:
        config: All settings, which the run's page shows.
        folder: The run's folder, which keeps the id: a random one, for the account may have runs of
            the same name from other machines.
        first_step: Steps made so far: at 0 it is another run, whatever was in the folder.
    """

    def __init__(self, config: CfgNode, folder: Path, *, first_step: int) -> None:
        import wandb

        path = folder / WANDB_ID
        if first_step == 0 or not path.exists():
            write_atomically(path, lambda file: file.write_text(secrets.token_hex(8), "ascii"))

        settings: dict[str, Any] = {key: value for key, value in config.items()}
        self.run = wandb.init(
            project="internimage",
            name=config.MODEL.NAME,
            id=path.read_text("ascii"),
            dir=str(folder),
            config=settings,
            resume="allow",
        )

    def log(self, values: dict[str, float], step: int) -> None:
        """Records figures at a step of the run."""
        self.run.log(values, step=step)

    def close(self) -> None:
        """Writes what is still in memory."""
        self.run.finish()


def open_tracker(config: CfgNode, folder: Path, *, first_step: int) -> Tracker:
    """Opens what LOGGER names; called on the first rank.

    Raises:
        ValueError: The package that it needs is not installed.
    """
    package = {"tensorboard": "tensorboard", "wandb": "wandb"}.get(config.LOGGER)
    try:
        if config.LOGGER == "tensorboard":
            return TensorBoardTracker(folder, first_step=first_step)
        if config.LOGGER == "wandb":
            return WandbTracker(config, folder, first_step=first_step)
    except ImportError as error:
        raise ValueError(
            f"open_tracker: expected the package {package} for LOGGER = {config.LOGGER}, got "
            f"{error}; pip install {package}, or choose LOGGER none"
        ) from error
    return NoTracker()
