"""What the engine tells of its steps and epochs."""

from dataclasses import dataclass


class BadFilesError(Exception):
    """Too many files of the data cannot be read."""


@dataclass(frozen=True)
class StepResult:
    """One optimiser step of this rank.

    Args:
        epoch: The epoch it belongs to, counted from 0.
        step: Steps made since the start of the run, this one included.
        loss: Mean loss of this rank's images.
        gradient_norm: Total norm of the gradient of all ranks, before clipping.
        learning_rate: The largest rate of all parameter groups.
        num_images: Images of this rank.
        seconds: Duration of the step, waiting for data included.
        data_seconds: Time that it waited for data.
        bad_files: Files that this rank could not read for it.
        stop: The signal by which a rank was asked to stop, 0 if none was: the same on all ranks.
    """

    epoch: int
    step: int
    loss: float
    gradient_norm: float
    learning_rate: float
    num_images: int
    seconds: float
    data_seconds: float
    bad_files: tuple[str, ...]
    stop: int


@dataclass
class Sums:
    """What a rank has added up since the start of an epoch.

    Args:
        loss: Losses of all images.
        gradient_norm: Norms of the steps that were not skipped.
        num_norms: The number of these steps.
        num_images: Images; a fraction where other ranks' images were dealt out.
        seconds: Duration, waiting for data included.
        data_seconds: Time that the steps waited for data.
        num_bad_files: Files of all ranks that could not be read.
        learning_rate: The rate of the last step.
    """

    loss: float = 0.0
    gradient_norm: float = 0.0
    num_norms: float = 0
    num_images: float = 0
    seconds: float = 0.0
    data_seconds: float = 0.0
    num_bad_files: float = 0
    learning_rate: float = 0.0


@dataclass(frozen=True)
class EpochResult:
    """One epoch of training on all ranks.

    Args:
        train_loss: Mean loss an image.
        gradient_norm: Mean over the steps of the total gradient norm, before clipping.
        learning_rate: The rate of the last step.
        images_per_second: Training images a second of all ranks together.
        data_share: Share of the time that the ranks waited for data, 0-1.
        num_bad_files: Files that could not be read.
    """

    train_loss: float
    gradient_norm: float
    learning_rate: float
    images_per_second: float
    data_share: float
    num_bad_files: int
