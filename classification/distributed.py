"""Ranks: start and end of the process group, sums over ranks, random states, stop signals.

Under torchrun the environment names the ranks; without it the world is one process and no process
group is made. gloo serves the CPU, nccl CUDA.
"""

import gc
import json
import os
import random
import signal
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class Ranks:
    """This process among all.

    Args:
        rank: 0 ... world_size - 1.
        world_size: The number of processes.
        device: The device of this process.
    """

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process prints and writes."""
        return self.rank == 0


class StoppedError(Exception):
    """SIGINT or SIGTERM arrived."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signal_number).name}")
        self.exit_code = 128 + signal_number


def start_ranks() -> Ranks:
    """Joins the process group that the launcher described, if any, and picks the device."""
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    use_cuda = torch.cuda.is_available()
    device = torch.device("cuda", local_rank) if use_cuda else torch.device("cpu")
    if use_cuda:
        num_devices = torch.cuda.device_count()
        if local_rank >= num_devices:
            raise ValueError(
                f"start_ranks: expected ranks on this machine <= CUDA devices = {num_devices}, "
                f"got local rank {local_rank}"
            )
        torch.cuda.set_device(device)
    if "WORLD_SIZE" not in os.environ:
        return Ranks(rank=0, world_size=1, device=device)
    dist.init_process_group("nccl" if use_cuda else "gloo")
    return Ranks(rank=dist.get_rank(), world_size=dist.get_world_size(), device=device)


def end_ranks() -> None:
    """Leaves the process group, if there is one, after the last step of all ranks.

    Every model of ``data_parallel`` must be out of use before. It holds the group as well, and the
    last holder joins gloo's threads: a model does so with the interpreter's lock held, for which a
    thread may be waiting to let go of a tensor. That is a deadlock, once in some dozen runs
    (PyTorch 2.13). ``destroy_process_group`` gives the lock away first.
    """
    if dist.is_initialized():
        gc.collect()
        dist.destroy_process_group()


def report_to_launcher(text: str) -> None:
    """Hands the reason of a failure to torchrun, which prints it below its own messages.

    torchrun names a file in the environment; PyTorch's own writer of it adds a stack trace, which
    would bury a line about a wrong setting.
    """
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path:
        extra = {"py_callstack": text, "timestamp": str(int(time.time()))}
        content = {"message": {"message": text, "extraInfo": extra}}
        Path(path).write_text(json.dumps(content), encoding="utf-8")


def leave(exit_code: int) -> NoReturn:
    """Ends the process; after an error or a signal at once.

    Whoever leaves in the middle of an epoch may have a collective under way, which no other rank
    will join: an orderly end would wait for it.
    """
    if exit_code and dist.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(exit_code)
    sys.exit(exit_code)


def data_parallel(model: nn.Module, ranks: Ranks) -> nn.Module:
    """Returns a model whose backward pass averages the gradients of all ranks.

    The weights of rank 0 go to all ranks now. Running statistics of batch norm stay each rank's own
    while training: whoever uses them averages them first.
    """
    if ranks.world_size == 1:
        return model
    # The gradient of a 1x1 convolution has other strides than its weight, for dimensions of size 1:
    # nothing is copied that would not be copied anyway.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    with warnings.catch_warnings():
        # PyTorch 2.13 has a new name for the argument; older ones know only this.
        warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")
        return DistributedDataParallel(model, broadcast_buffers=False)


def sum_over_ranks(values: torch.Tensor) -> torch.Tensor:
    """Returns the sum of ``values`` (any shape) over all ranks."""
    total = values.clone()
    if dist.is_initialized():
        dist.all_reduce(total)
    return total


def on_first_rank(ranks: Ranks, do: Callable[[], object]) -> None:
    """Lets the first rank do something, such as writing a file, while the others wait.

    If that fails all ranks raise: none goes on into a step that the first one will not join.

    Raises:
        OSError: ``do`` raised it, on the first rank.
        ValueError: Likewise.
    """
    failure: OSError | ValueError | None = None
    if ranks.is_main:
        try:
            do()
        except (OSError, ValueError) as error:
            failure = error
    reason = [None if failure is None else str(failure)]
    if dist.is_initialized():
        dist.broadcast_object_list(reason, device=ranks.device)
    if failure is not None:
        raise failure
    if reason[0] is not None:
        raise OSError(reason[0])


def seed_everything(seed: int, ranks: Ranks, *, epoch: int = 0) -> None:
    """Seeds Python, NumPy and PyTorch for one epoch on one rank.

    Every (seed, epoch, rank) has random states of its own, independent of what was drawn before: an
    epoch that follows a resume draws what it would have drawn in an unbroken run.
    """
    # SeedSequence spreads the three numbers: neighbours give unrelated states.
    state = np.random.SeedSequence((seed, epoch, ranks.rank)).generate_state(1, dtype=np.uint64)[0]
    random.seed(int(state))
    np.random.seed(int(state % 2**32))
    torch.manual_seed(int(state))


def raise_on_stop_signals() -> None:
    """Lets SIGINT and SIGTERM raise ``StoppedError`` in the main thread.

    torchrun passes both on to every rank. Each rank leaves on its own, without a word to the
    others: a rank that waits in a collective is woken by the connection that its peer closes.
    """

    def stop(signal_number: int, _frame: FrameType | None) -> None:
        # A second signal while leaving would only garble the message.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise StoppedError(signal_number)

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
