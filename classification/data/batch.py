"""What the loaders hand to the engine.

Shape legend: N images of a batch on one rank, H W pixels.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor


class Batch(NamedTuple):
    """A batch of one rank, on the CPU.

    Args:
        images: (N, 3, H, W), uint8; ``Data.finish_train`` or ``finish_test`` makes floats of them.
        labels: (N,), int64.
        meta: What a model takes beside the images: times (N, 4) and places (N, 3) of iNaturalist.
        bad_files: "PATH (reason)" of each file that was to be in the batch and could not be read. A
            training batch has other images in their place, a test batch is smaller and may be
            empty.
    """

    images: Tensor
    labels: Tensor
    meta: tuple[Tensor, ...] = ()
    bad_files: tuple[str, ...] = ()


class TrainLoader(Protocol):
    """This rank's training batches, all of one size."""

    def __len__(self) -> int:
        """Returns the number of batches of an epoch, the same on every rank."""

    def batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Returns the batches of an epoch from the ``first`` one on.

        Order and augmentation depend on the seed, the epoch and the image alone: not on where the
        iteration began, the number of workers or the random states of this process, which stay as
        they are.
        """


class TestLoader(Protocol):
    """This rank's share of the test images, in a fixed order."""

    def __len__(self) -> int:
        """Returns the number of batches, which may differ by one between ranks."""

    def __iter__(self) -> Iterator[Batch]:
        """Returns all batches."""


@dataclass(frozen=True)
class Data:
    """Training and test images of a run, as one rank sees them.

    Args:
        class_names: The name of each class.
        num_train_images: Training images of all ranks together.
        num_test_images: Test images of all ranks together.
        train_loader: Training batches, of whole steps: what is left over is left out, so that all
            ranks make equally many.
        test_loader: Test batches.
        finish_train: Ends the augmentation of training images on the device of its argument: uint8
            (N, 3, H, W) to normalised float32, partly erased. Draws from the random states of
            Python and PyTorch.
        finish_test: The same without randomness.
        test_is_shared: Whether the ranks share the test images; else each has all of them.
    """

    class_names: tuple[str, ...]
    num_train_images: int
    num_test_images: int
    train_loader: TrainLoader
    test_loader: TestLoader
    finish_train: Callable[[Tensor], Tensor]
    finish_test: Callable[[Tensor], Tensor]
    test_is_shared: bool = True
