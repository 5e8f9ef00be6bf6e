"""A process group for strategies that cannot do without one."""

import torch.distributed as dist

from classification.distributed import Ranks


def ensure_process_group(ranks: Ranks) -> None:
    """Makes a process without a launcher a group of its own; ``end_ranks`` ends it."""
    if not dist.is_initialized():
        # Of what is offloaded, sums are made on the CPU.
        backend = "cpu:gloo,cuda:nccl" if ranks.device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
