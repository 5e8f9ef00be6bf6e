"""Checkpoints that are whole or absent, and a signal that saves before it stops."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from mmengine.dataset import InfiniteSampler
from mmengine.dist import barrier, master_only
from mmengine.fileio.backends import LocalBackend, register_backend
from mmengine.hooks import EMAHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import DATA_SAMPLERS
from mmengine.runner import IterBasedTrainLoop, Runner
from torch.utils.data import BatchSampler, Sampler

from internimage.files import write_atomically
from internimage.processes import StoppedError, StopRequest

STOPPED = "stopped.pth"
"""The checkpoint that a signal leaves."""

LAST = "last_checkpoint"
"""mmengine's file that names the newest checkpoint."""


class WholeFileBackend(LocalBackend):
    """Writes files whole or not at all, and removes old ones after that.

    mmengine removes the oldest checkpoint before it writes the next: on a full disk neither would
    be left.
    """

    # Of all instances: mmengine makes one for every call. The list can go when CheckpointHook
    # removes what is too much after it has written.
    _to_remove: ClassVar[list[Path]] = []

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write a file; the old one of its name stays until the new one is whole."""
        path = Path(filepath)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda temporary: temporary.write_bytes(obj))
        for old in self._to_remove:
            # The new file may have the name of one that was to go.
            if old != path:
                old.unlink(missing_ok=True)
        self._to_remove.clear()

    def remove(self, filepath: str | Path) -> None:
        """Remove a file as soon as the next one is written."""
        self._to_remove.append(Path(filepath))


register_backend("whole_file", WholeFileBackend, force=True)


@DATA_SAMPLERS.register_module()
class GoOnBatchSampler(Sampler[list[int]]):
    """Batches of another sampler, from the middle of an epoch where a run goes on there.

    Args:
        sampler: Of images.
        batch_size: Images a batch.
        batches: Config of the batch sampler; None is PyTorch's.
        drop_last: For PyTorch's: leave out what makes no whole batch.
    """

    def __init__(
        self,
        sampler: Sampler[int],
        batch_size: int,
        batches: dict[str, Any] | None = None,
        drop_last: bool = False,
    ) -> None:
        self.sampler = sampler
        self.batch_size = batch_size
        self.num_done = 0
        if batches is None:
            self.batches: Any = BatchSampler(sampler, batch_size, drop_last)
        else:
            self.batches = DATA_SAMPLERS.build(
                dict(batches), default_args={"sampler": sampler, "batch_size": batch_size}
            )

    def __iter__(self) -> Iterator[list[int]]:
        done, self.num_done = self.num_done, 0  # the epochs after this one are whole
        # The sampler is asked for all: its random numbers are those of an uninterrupted epoch. No
        # image is loaded for those left out.
        for index, batch in enumerate(self.batches):
            if index >= done:
                yield batch

    def __len__(self) -> int:
        """The batches of a whole epoch."""
        return len(self.batches)


class StopHook(Hook):
    """Saves and stops where a scheduler asks for it by SIGTERM or SIGUSR1.

    A run goes on at the batch after the last, in the middle of an epoch as well.

    Raises:
        StoppedError: The state is saved.
    """

    priority = "LOWEST"  # after the step's other hooks

    def __init__(self) -> None:
        self.request = StopRequest()
        self._open = ExitStack()
        # A share of the epoch: on another number of ranks it has another number of batches.
        self._part_done = 0.0
        # Whether the ranks may ask one another after each batch of an evaluation.
        self._evaluates_in_step = True

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Read how much of an epoch the run has behind it."""
        self._part_done = (
            checkpoint.get("meta", {}).get("part_done", 0.0) if runner._resume else 0.0
        )

    def before_train(self, runner: Runner) -> None:
        """From here on a signal waits for the end of the step at hand."""
        self._open.enter_context(self.request)
        batches = runner.train_dataloader.batch_sampler
        if not isinstance(batches, GoOnBatchSampler):
            return
        if isinstance(runner.train_loop, IterBasedTrainLoop):
            skip_steps(runner.train_loop, batches)
        else:
            batches.num_done = round(self._part_done * len(batches))

    def after_train(self, runner: Runner) -> None:
        """A signal stops at once again."""
        self._open.close()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Stop all ranks where one of them was asked to."""
        # A scheduler may signal one rank alone, and the others would wait for it in the next step.
        number = _largest(self.request.signal_number, runner)
        if number:
            self._stop(runner, number, runner.iter + 1)  # the loop counts the step after its hooks

    def before_val_epoch(self, runner: Runner) -> None:
        """Find out whether all ranks evaluate the same number of batches."""
        # The least number is minus the largest of the negative ones.
        length = len(runner.val_dataloader)
        self._evaluates_in_step = _largest(length, runner) == -_largest(-length, runner)

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Stop all ranks as well; where they are not in step, the evaluation is finished first."""
        number = _largest(self.request.signal_number, runner) if self._evaluates_in_step else 0
        if number:
            for hook in runner.hooks:
                if isinstance(hook, EMAHook):
                    # The model has the averaged weights for the evaluation: the learnt ones return.
                    hook.after_val_epoch(runner)
            self._stop(runner, number, runner.iter)

    def _stop(self, runner: Runner, number: int, iteration: int) -> None:
        length = len(runner.train_dataloader)
        runner.save_checkpoint(
            runner.work_dir,
            STOPPED,
            meta={
                "epoch": runner.epoch,
                "iter": iteration,
                "part_done": (iteration - runner.epoch * length) / length,
            },
            by_epoch=False,
            backend_args={"backend": "whole_file"},
        )
        _name_last(Path(runner.work_dir, STOPPED))
        # The first rank alone writes, and a launcher may end all of them once one has left.
        barrier()
        raise StoppedError(number)


def skip_steps(loop: IterBasedTrainLoop, batches: GoOnBatchSampler) -> None:
    """Let a schedule by steps go on behind those that are made, without loading their images.

    mmengine does so for PyTorch's own batches of an endless sampler alone.

    Args:
        loop: Not yet at work; ``iter`` are the steps that are made.
        batches: Those of its loader.
    """
    iterator = loop.dataloader_iterator
    if not hasattr(iterator, "skip_iter"):
        return  # an mmengine that goes through all of them by itself
    iterator.skip_iter = lambda _: None
    if isinstance(batches.sampler, InfiniteSampler):
        batches.num_done = loop.iter
        return
    # A sampler with an end is shuffled by its epoch; mmengine counts them when one is over.
    iterator._epoch, batches.num_done = divmod(loop.iter, len(batches))
    if hasattr(batches.sampler, "set_epoch"):
        batches.sampler.set_epoch(iterator._epoch)


@master_only
def _name_last(path: Path) -> None:
    write_atomically(path.with_name(LAST), lambda file: file.write_text(str(path)))


def _largest(number: int, runner: Runner) -> int:
    """Return the largest of all ranks' numbers."""
    if not dist.is_initialized():
        return number
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    # On the model's device: nccl takes tensors on GPUs alone.
    largest = torch.tensor(number, device=next(model.parameters()).device)
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return int(largest.item())
