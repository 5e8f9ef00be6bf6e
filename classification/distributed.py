"""Ranks: start and end of the process group, exchange between ranks.

Under torchrun the environment names the ranks; without it the world is one process and no process
group is made. gloo serves the CPU, nccl CUDA.
"""

import gc
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from internimage.processes import die_with_the_launcher


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
    die_with_the_launcher()
    # gloo beside nccl for what is kept in main memory, such as offloaded weights.
    dist.init_process_group("cpu:gloo,cuda:nccl" if use_cuda else "gloo")
    return Ranks(rank=dist.get_rank(), world_size=dist.get_world_size(), device=device)


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
