"""Ranks of OpenMMLab's runner: any launcher, CPUs as well.

mmengine chooses a CUDA device for every rank and hands it to the model's wrapper, so that neither
works on a CPU. Here the process group is there before the runner looks for one, and the wrapper
drops the device.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import MODEL_WRAPPERS
from torch import nn

from internimage.processes import die_with_the_launcher
from internimage.slurm import name_ranks

OPEN_MPI = {
    "RANK": "OMPI_COMM_WORLD_RANK",
    "WORLD_SIZE": "OMPI_COMM_WORLD_SIZE",
    "LOCAL_RANK": "OMPI_COMM_WORLD_LOCAL_RANK",
}
"""torchrun's names and mpirun's."""


@MODEL_WRAPPERS.register_module()
class HostDistributedDataParallel(MMDistributedDataParallel):
    """mmengine's wrapper for ranks on CPUs, which have no device numbers.

    Args:
        module: The model.
        device_ids: What the runner gives; not used.
        **kwargs: Those of PyTorch's wrapper.
    """

    def __init__(
        self, module: nn.Module, device_ids: list[int] | None = None, **kwargs: Any
    ) -> None:
        # The class can go when the runner gives device_ids to ranks with a GPU alone.
        super().__init__(module=module, **kwargs)


def name_launcher(
    launcher: str | None, local_rank: int | None, environment: MutableMapping[str, str]
) -> str:
    """Return the launcher in the runner's words, ``"pytorch"`` or ``"none"``.

    The environment names the ranks as torchrun does afterwards.

    Args:
        launcher: What ``--launcher`` says; None is whoever shows in the environment.
        local_rank: What ``--local-rank`` says.
        environment: The variables of this process, ``os.environ``.

    Raises:
        ValueError: The launcher has left no trace, or there is one that was denied.
    """
    if launcher == "slurm":
        if "SLURM_STEP_ID" not in environment:
            raise ValueError(
                "expected srun's variables beside --launcher slurm, got none; slurm_train.sh "
                "and slurm_test.sh start the ranks"
            )
        name_ranks(environment)
    elif launcher == "mpi":
        for name, theirs in OPEN_MPI.items():
            if theirs not in environment:
                raise ValueError(
                    f"expected mpirun's variable {theirs} beside --launcher mpi, got none"
                )
            environment[name] = environment[theirs]
        # Some ranks are elsewhere: mpirun does not say where the first one is.
        if environment.get("OMPI_COMM_WORLD_LOCAL_SIZE") != environment["WORLD_SIZE"]:
            if "MASTER_ADDR" not in environment:
                raise ValueError(
                    "expected MASTER_ADDR, the first machine's name, beside --launcher mpi on "
                    "several machines, got none"
                )
        environment.setdefault("MASTER_ADDR", "127.0.0.1")
        environment.setdefault("MASTER_PORT", "29500")  # torchrun's default
    if local_rank is not None:
        environment.setdefault("LOCAL_RANK", str(local_rank))
    if "RANK" in environment and "WORLD_SIZE" in environment:
        # One rank under torchrun may be told that it is alone.
        if launcher == "none" and environment["WORLD_SIZE"] != "1":
            raise ValueError(
                f"expected no --launcher none under one that started {environment['WORLD_SIZE']} "
                "ranks: all would do the same work"
            )
        environment.setdefault("LOCAL_RANK", "0")
        return "none" if launcher == "none" else "pytorch"
    if launcher == "pytorch":
        raise ValueError(
            "expected torchrun's variables beside --launcher pytorch, got none; dist_train.sh "
            "and dist_test.sh start the ranks"
        )
    return "none"


def start_ranks(config: Config) -> None:
    """Join the process group and choose this rank's device and wrapper.

    Args:
        config: ``launcher`` is the one of :func:`name_launcher`; ``model_wrapper_cfg`` is set.

    Raises:
        ValueError: There are more ranks on this machine than GPUs.
    """
    use_cuda = torch.cuda.is_available()
    if config.launcher == "none":
        return
    local_rank = int(os.environ["LOCAL_RANK"])
    if use_cuda:
        if local_rank >= torch.cuda.device_count():
            raise ValueError(
                f"start_ranks: expected ranks on this machine <= CUDA devices = "
                f"{torch.cuda.device_count()}, got local rank {local_rank}"
            )
        torch.cuda.set_device(local_rank)  # before the group: nccl takes the current device
    die_with_the_launcher()
    options = dict(config.get("env_cfg", {}).get("dist_cfg", {}))
    # mmengine's init_dist takes seconds as well, PyTorch a timedelta.
    seconds = options.get("timeout")
    timeout = None if seconds is None else timedelta(seconds=seconds)
    backend = options.get("backend", "nccl") if use_cuda else "gloo"
    dist.init_process_group(backend, timeout=timeout)
    if not use_cuda:
        _wrap_for_the_host(config)


def choose_gpu(number: int | None) -> None:
    """Use the GPU of this number where there is no launcher.

    Raises:
        ValueError: There is no such GPU.
    """
    if number is None:
        return
    if not 0 <= number < torch.cuda.device_count():
        raise ValueError(
            f"expected --gpu-id, or --gpu-ids, below the number of GPUs = "
            f"{torch.cuda.device_count()}, got {number}"
        )
    torch.cuda.set_device(number)


def replace_sync_batch_norm(config: Config) -> int:
    """Turn synchronised batch norms of the model into plain ones where they cannot work.

    On a CPU there is no such layer; with one process there is nothing to synchronise.

    Returns:
        How many norms of the config were turned.
    """
    several = dist.is_initialized() and dist.get_world_size() > 1
    if several and torch.cuda.is_available():
        return 0
    return _replace_norms(config.model)


def _replace_norms(node: Any) -> int:
    if isinstance(node, (list, tuple)):
        return sum(_replace_norms(item) for item in node)
    if not isinstance(node, dict):
        return 0
    count = 0
    if node.get("type") in ("SyncBN", "MMSyncBN"):
        node["type"] = "BN"
        count = 1
    return count + sum(_replace_norms(value) for value in node.values())


def _wrap_for_the_host(config: Config) -> None:
    wrapper = dict(config.get("model_wrapper_cfg") or {})
    if wrapper.get("type", "MMDistributedDataParallel") != "MMDistributedDataParallel":
        return  # of the user's own choice
    find_unused = config.get("find_unused_parameters", False)
    # Both as the runner sets them for its own wrapper where a config has none.
    config.model_wrapper_cfg = {
        "broadcast_buffers": False,
        "find_unused_parameters": find_unused,
        **wrapper,
        "type": "HostDistributedDataParallel",
    }
