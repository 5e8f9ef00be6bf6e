"""Ranks: start and end of the process group, exchange between ranks, stop signals.

Under torchrun the environment names the ranks; without it the world is one process and no process
group is made. gloo serves the CPU, nccl CUDA.
"""

import ctypes
import gc
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist


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


T = TypeVar("T")

# "Save and leave": from kill, torchrun and schedulers. Windows has no SIGUSR1.
REQUESTS = (signal.SIGTERM, *([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else []))


class StoppedError(Exception):
    """A signal asked to stop."""

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
    _die_with_the_launcher()
    # gloo beside nccl for what is kept in main memory, such as offloaded weights.
    dist.init_process_group("cpu:gloo,cuda:nccl" if use_cuda else "gloo")
    return Ranks(rank=dist.get_rank(), world_size=dist.get_world_size(), device=device)


def _die_with_the_launcher() -> None:
    """Asks Linux to kill this rank when torchrun is killed, who could not pass the signal on.

    Its ranks would train on unseen, in the folder in which the restarted command trains as well.
    """
    if sys.platform == "linux" and "TORCHELASTIC_RUN_ID" in os.environ:
        set_parent_death_signal = 1  # PR_SET_PDEATHSIG of <sys/prctl.h>
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


def end_ranks() -> None:
    """Leaves the process group, if there is one, after the last step of all ranks.

    Every model of a strategy must be out of use before. It holds the group as well, and the
    last holder joins gloo's threads: a model does so with the interpreter's lock held, for which a
    thread may be waiting to let go of a tensor. That is a deadlock, once in some dozen runs
    (PyTorch 2.13). ``destroy_process_group`` gives the lock away first.
    """
    if dist.is_initialized():
        gc.collect()
        dist.destroy_process_group()


def is_lost_rank(error: RuntimeError) -> bool:
    """Whether an error of a collective says that another rank has ended."""
    if isinstance(error, (dist.DistNetworkError, dist.DistBackendError)):
        return True
    signs = ("closed by peer", "reset by peer", "Broken pipe", "Connection refused")
    return dist.is_initialized() and any(sign in str(error) for sign in signs)


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


def sum_over_ranks(values: torch.Tensor) -> torch.Tensor:
    """Returns the sum of ``values`` (any shape) over all ranks."""
    total = values.clone()
    if dist.is_initialized():
        dist.all_reduce(total)
    return total


def start_sum_over_ranks(values: torch.Tensor) -> Callable[[], torch.Tensor]:
    """Starts the sum of ``values`` over all ranks; the function that it returns waits for it."""
    if not dist.is_initialized():
        return lambda: values
    work = dist.all_reduce(values, async_op=True)

    def wait() -> torch.Tensor:
        work.wait()
        return values

    return wait


def max_over_ranks(value: int, ranks: Ranks) -> int:
    """Returns the largest ``value`` of all ranks."""
    largest = torch.tensor(value, device=ranks.device)
    if dist.is_initialized():
        dist.all_reduce(largest, dist.ReduceOp.MAX)
    return int(largest.item())


def gather_on_first_rank(ranks: Ranks, value: Any) -> list[Any]:
    """Returns the ``value`` of each rank, on the first one; the others get an empty list."""
    if not dist.is_initialized():
        return [value]
    gathered: list[Any] | None = [None] * ranks.world_size if ranks.is_main else None
    dist.gather_object(value, gathered)
    return gathered or []


def on_first_rank(ranks: Ranks, do: Callable[[], T]) -> T:
    """Lets the first rank do something, such as writing a file, while the others wait.

    If that fails all ranks raise: none goes on into a step that the first one will not join.

    Args:
        ranks: This process among all.
        do: Returns something that can be pickled, which all ranks get.

    Raises:
        OSError: ``do`` raised it, on the first rank.
        ValueError: Likewise.
    """
    failure: OSError | ValueError | None = None
    answer: list[Any] = [None, None]  # the result, and the reason of a failure
    if ranks.is_main:
        try:
            answer[0] = do()
        except (OSError, ValueError) as error:
            failure = error
            answer[1] = str(error)
    if dist.is_initialized():
        dist.broadcast_object_list(answer, device=ranks.device)
    if failure is not None:
        raise failure
    if answer[1] is not None:
        raise OSError(answer[1])
    return answer[0]


def raise_on_stop_signals() -> None:
    """Lets SIGINT, SIGTERM and SIGUSR1 raise ``StoppedError`` in the main thread.

    torchrun passes signals on to every rank. Each rank leaves on its own, without a word to the
    others: a rank that waits in a collective is woken by the connection that its peer closes.
    """

    def stop(signal_number: int, _frame: FrameType | None) -> None:
        # A second signal while leaving would only garble the message.
        for number in (signal.SIGINT, *REQUESTS):
            signal.signal(number, signal.SIG_IGN)
        raise StoppedError(signal_number)

    for number in (signal.SIGINT, *REQUESTS):
        signal.signal(number, stop)


class StopRequest:
    """Notes SIGTERM and SIGUSR1 in a block instead of raising at once; SIGINT still raises.

    Schedulers send them some time before they end a job, and often twice: to the launcher, which
    passes them on, and to every process.
    """

    def __init__(self) -> None:
        self.signal_number = 0

    def __enter__(self) -> "StopRequest":
        self._before = {number: signal.getsignal(number) for number in REQUESTS}
        for number in REQUESTS:
            signal.signal(number, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # After an error or a stop the process leaves: a late request must not disturb that.
        for number, handler in self._before.items():
            signal.signal(number, handler if kind is None else signal.SIG_IGN)

    def _note(self, signal_number: int, _frame: FrameType | None) -> None:
        self.signal_number = self.signal_number or signal_number
