"""Batches of decoded and augmented images, from worker processes or from this one.

Every image is augmented with random numbers of its own, drawn from (seed, epoch, image): how many
workers there are and where an iteration begins changes nothing.
"""

import contextlib
import os
import random
import signal
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from classification.data.batch import Batch
from classification.data.decode import to_image, to_pixels
from classification.data.sampler import TrainOrder
from classification.data.source import Source
from classification.data.transforms import seed_image

MAX_BAD_IN_A_ROW = 50
"""So many unreadable images one after the other mean that something else is wrong."""

TEST_EPOCH = -1
"""What stands for the epoch where test images draw random numbers."""

SECONDS_AFTER_SIGNAL = 600
"""How long a worker outlives SIGTERM at most: the training process makes a checkpoint meanwhile.

It leaves sooner if that process does. torchrun has such a time as well: ``--shutdown-timeout``."""

Item = tuple[int, int]  # epoch, index of an image


class ImageReader(Dataset):
    """Decodes and augments the images of a batch; lives in each worker.

    Args:
        source: The images.
        decode: From what the source holds to a picture; raises ValueError for a bad file.
        transform: From a picture to (S, S, 3), uint8.
        size: S, pixels.
        seed: SEED.
        replace_bad: Takes the next readable image for one that is not; False leaves it out.
    """

    def __init__(
        self,
        source: Source,
        *,
        decode: Callable[..., Any],
        transform: Callable[[Any], Tensor],
        size: int,
        seed: int,
        replace_bad: bool,
    ) -> None:
        self.source = source
        self.decode = decode
        self.transform = transform
        self.size = size
        self.seed = seed
        self.replace_bad = replace_bad

    def __getitems__(self, items: Sequence[Item]) -> Batch | ValueError:
        """Returns a batch, or the mistake: one that is raised here reaches the user as a stack."""
        images, chosen, bad = [], [], list[str]()
        for epoch, index in items:
            seed_image(self.seed, epoch, index)
            found = self._find_readable(index, bad)
            if found is not None:
                chosen.append(found[0])
                images.append(self.transform(found[1]))
            elif self.replace_bad:
                last = self.source.name((index + MAX_BAD_IN_A_ROW - 1) % len(self.source))
                return ValueError(
                    f"build_data: expected a readable image among {MAX_BAD_IN_A_ROW} in a row, got "
                    f"none from {self.source.name(index)} to {last}"
                )
        return Batch(
            images=self._stack(images),
            labels=torch.from_numpy(self.source.labels[chosen]),
            meta=tuple(torch.from_numpy(values[chosen]) for values in self.source.meta),
            bad_files=tuple(bad),
        )

    def _find_readable(self, index: int, bad: list[str]) -> tuple[int, Any] | None:
        """Returns the index and picture of the image, or of the one that takes its place."""
        for step in range(MAX_BAD_IN_A_ROW if self.replace_bad else 1):
            candidate = (index + step) % len(self.source)
            name = self.source.name(candidate)
            try:
                return candidate, self.decode(self.source.read(candidate), name=name)
            except (OSError, ValueError) as error:
                # Those behind it are named where the epoch has them: each is counted once.
                if step == 0:
                    bad.append(f"{name} ({_reason(error, name)})")
        return None

    def _stack(self, images: list[Tensor]) -> Tensor:
        """Returns (N, 3, S, S); in memory the colours of a pixel stay neighbours."""
        if not images:
            return torch.empty(0, 3, self.size, self.size, dtype=torch.uint8)
        # In a worker this stacks into memory that the training process shares: no further copy.
        return default_collate(images).permute(0, 3, 1, 2)


class _Batches:
    """The batches of one iteration; a DataLoader asks for them as it goes along."""

    def __init__(self) -> None:
        self.epoch = 0
        self.indices: Sequence[Sequence[int] | np.ndarray] = ()

    def __iter__(self) -> Iterator[list[Item]]:
        return ([(self.epoch, int(index)) for index in indices] for indices in self.indices)

    def __len__(self) -> int:
        return len(self.indices)


class _Workers:
    """A DataLoader whose workers stay from one iteration to the next."""

    def __init__(self, reader: ImageReader, *, num_workers: int, pin_memory: bool) -> None:
        self.batches = _Batches()
        self.num_workers = num_workers
        loader = DataLoader(
            reader,
            batch_sampler=self.batches,
            num_workers=num_workers,
            collate_fn=_as_it_is,
            pin_memory=pin_memory,
            # Forking shares the images in memory, and starts no second interpreter.
            multiprocessing_context="fork" if num_workers else None,
            persistent_workers=num_workers > 0,
            worker_init_fn=_outlive_signals,
            generator=torch.Generator(),  # or it would draw from this process's
        )
        # The only references to both, which are let go of at exit at the latest: before Python
        # waits for workers that nobody told to leave.
        self.held: dict[str, Any] = {"loader": loader}
        weakref.finalize(self, self.held.clear)

    def load(self, epoch: int, indices: Sequence[Sequence[int] | np.ndarray]) -> Iterator[Batch]:
        """Yields batches; an earlier iteration ends where it is.

        Args:
            epoch: What the random numbers of the images depend on.
            indices: The images of each batch.

        Raises:
            ValueError: Too many images in a row cannot be read.
            OSError: A worker was killed.
        """
        self.batches.epoch, self.batches.indices = epoch, indices
        with _no_errors_between_batches():
            self.held["iterator"] = iter(self.held["loader"])
        # Read here, images draw random numbers in this process.
        keep = contextlib.nullcontext if self.num_workers else _same_random_states
        for _ in range(len(indices)):
            assert self.batches.indices is indices, "another iteration has begun"
            try:
                with keep():
                    batch = next(self.held["iterator"])
            except (RuntimeError, OSError, EOFError) as error:
                if isinstance(error, RuntimeError) and "exited unexpectedly" not in str(error):
                    raise
                raise OSError(
                    f"build_data: expected DATA.NUM_WORKERS {self.num_workers} processes a rank "
                    f"that live, got one that was killed, by a lack of memory perhaps ({error})"
                ) from error
            if isinstance(batch, ValueError):
                raise batch
            # Pinning makes lists of tuples.
            yield Batch(batch.images, batch.labels, tuple(batch.meta), tuple(batch.bad_files))


class ShuffledLoader:
    """The training batches of one rank; a ``TrainLoader``.

    Args:
        source: The training images.
        transform: The augmentation of one, (3, H, W) -> (S, S, 3), uint8.
        order: The order of each epoch.
        size: S, pixels.
        seed: SEED.
        batch_size: N.
        batches_a_step: An epoch has a multiple of so many batches: none is loaded in vain.
        num_workers: Processes that load; 0 loads here.
        pin_memory: Puts batches where CUDA copies them from faster.
    """

    def __init__(
        self,
        source: Source,
        transform: Callable[[Tensor], Tensor],
        order: TrainOrder,
        *,
        size: int,
        seed: int,
        batch_size: int,
        batches_a_step: int,
        num_workers: int,
        pin_memory: bool,
    ) -> None:
        reader = ImageReader(
            source, decode=to_pixels, transform=transform, size=size, seed=seed, replace_bad=True
        )
        self.order = order
        self.batch_size = batch_size
        self.batches_a_step = batches_a_step
        self.workers = _Workers(reader, num_workers=num_workers, pin_memory=pin_memory)

    def __len__(self) -> int:
        """Returns the number of batches of an epoch, the same on every rank."""
        num_batches = len(self.order) // self.batch_size
        return num_batches - num_batches % self.batches_a_step

    def batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Returns the batches of an epoch from the ``first`` one on."""
        order = self.order.of_epoch(epoch)[: len(self) * self.batch_size]
        return self.workers.load(epoch, list(order.reshape(len(self), self.batch_size)[first:]))


class OrderedLoader:
    """The test batches of one rank; a ``TestLoader``.

    Args:
        source: The test images.
        transform: The preparation of one, to (S, S, 3), uint8.
        indices: The images of this rank.
        size: S, pixels.
        seed: SEED.
        batch_size: N; the last batch may be smaller.
        num_workers: Processes that load; 0 loads here.
        pin_memory: Puts batches where CUDA copies them from faster.
    """

    def __init__(
        self,
        source: Source,
        transform: Callable[[Image.Image], Tensor],
        indices: Sequence[int],
        *,
        size: int,
        seed: int,
        batch_size: int,
        num_workers: int,
        pin_memory: bool,
    ) -> None:
        reader = ImageReader(
            source, decode=to_image, transform=transform, size=size, seed=seed, replace_bad=False
        )
        starts = range(0, len(indices), batch_size)
        self.batches = [indices[start : start + batch_size] for start in starts]
        self.workers = _Workers(reader, num_workers=num_workers, pin_memory=pin_memory)

    def __len__(self) -> int:
        """Returns the number of batches, which may differ by one between ranks."""
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        """Returns all batches."""
        return self.workers.load(TEST_EPOCH, self.batches)


def _reason(error: OSError | ValueError, name: str) -> str:
    """Returns what is wrong with an image, from errors that say "expected ..., got NAME ..."."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = " ".join(str(error).split())
    return (text.partition(", got ")[2] or text).replace(name, "").strip(" ,")


def _as_it_is(batch: Any) -> Any:
    return batch  # ``ImageReader`` has made it


@contextlib.contextmanager
def _same_random_states() -> Iterator[None]:
    """Gives the random states of this process back as they were."""
    states = random.getstate(), np.random.get_state(), torch.default_generator.get_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.default_generator.set_state(states[2])


@contextlib.contextmanager
def _no_errors_between_batches() -> Iterator[None]:
    """Keeps PyTorch from raising the death of a worker wherever this process happens to be.

    That may be in the middle of a checkpoint. Whoever asks for a batch is told within 5 seconds.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # PyTorch leaves signals alone then
        return
    handler = signal.getsignal(signal.SIGCHLD)
    yield
    signal.signal(signal.SIGCHLD, handler)


def _outlive_signals(worker: int) -> None:
    """Leaves stop signals to the training process: a scheduler sends them to all processes.

    A worker that died at once would interrupt the checkpoint that the signal asks for.
    """

    def leave_later(_number: int, _frame: FrameType | None) -> None:
        signal.alarm(SECONDS_AFTER_SIGNAL)

    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, leave_later)
    signal.signal(signal.SIGALRM, lambda _number, _frame: os._exit(0))
