"""Data parallelism: every rank has the whole model, the gradients are averaged.

With USE_ZERO each rank keeps the optimiser's states of a share of the parameters and sends these to
the others after each step.
"""

import contextlib
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.nn.parallel import DistributedDataParallel
from yacs.config import CfgNode

from classification.distributed import Ranks
from classification.optim import build_optimizer, optimizer_recipe
from classification.strategies.precision import Precision
from classification.strategies.torch_native import TorchStrategy
from internimage import InternImage


class DataParallel(TorchStrategy):
    """The strategy "ddp", and what one process does without a group."""

    def batch_of_step(self, *, is_last: bool) -> contextlib.AbstractContextManager[Any]:
        """See ``Strategy``."""
        if isinstance(self.wrapped, DistributedDataParallel) and not is_last:
            return self.wrapped.no_sync()
        return contextlib.nullcontext()

    def settle(self, inputs: Tensor | tuple[Tensor, ...]) -> None:
        """See ``Strategy``.

        DistributedDataParallel deals the gradients out to buckets anew after its first backward
        pass, and among three or more ranks a sum depends on the place in the bucket.
        """
        if isinstance(self.wrapped, DistributedDataParallel):
            self.model.train()
            self.backward(self.forward(inputs).sum(), is_last=True)
            self.optimizer.zero_grad()

    def _whole(self, tensor: Tensor) -> Tensor:
        return tensor

    def _share(self, whole: Tensor, like: Tensor) -> Tensor:
        return whole

    def _local(self, tensor: Tensor) -> Tensor:
        return tensor

    @property
    def _local_optimizer(self) -> torch.optim.Optimizer:
        if isinstance(self.optimizer, ZeroRedundancyOptimizer):
            return self.optimizer.optim
        return self.optimizer

    def _named_states(self) -> dict[str, dict[str, Tensor]]:
        if not isinstance(self.optimizer, ZeroRedundancyOptimizer):
            return super()._named_states()
        self.optimizer.consolidate_state_dict(to=0)
        if not self.ranks.is_main:
            return {}
        states = self.optimizer.state_dict()["state"]
        # PyTorch would keep the copies of all ranks until the next call.
        self.optimizer._all_state_dicts.clear()  # type: ignore[attr-defined]
        names = {p: name for name, p in self._named_parameters().items()}
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        return {names[parameters[index]]: state for index, state in states.items()}


def build_data_parallel(
    config: CfgNode, model: InternImage, ranks: Ranks, *, factor: float
) -> DataParallel:
    """Builds the strategy "ddp"; see ``build_strategy``."""
    memory_format = torch.contiguous_format
    if config.TRAIN.CHANNELS_LAST:
        memory_format = torch.channels_last
        model.to(memory_format=memory_format)  # type: ignore[call-overload]
    if config.TRAIN.OPTIMIZER.USE_ZERO and ranks.world_size > 1:
        kind, groups, options = optimizer_recipe(config, model, factor=factor)
        optimizer: torch.optim.Optimizer = ZeroRedundancyOptimizer(groups, kind, **options)
    else:
        optimizer = build_optimizer(config, model, factor=factor)
    wrapped = data_parallel(model, ranks)
    if config.TRAIN.COMPILE:
        wrapped.compile()
    return DataParallel(
        model,
        wrapped,
        optimizer,
        precision=Precision(config, ranks.device),
        memory_format=memory_format,
        ranks=ranks,
    )


def data_parallel(model: nn.Module, ranks: Ranks) -> nn.Module:
    """Returns a model whose backward pass averages the gradients of all ranks.

    The weights of rank 0 go to all ranks now. Running statistics of batch norm stay each rank's own
    while training: whoever uses them averages them first.
    """
    if ranks.world_size == 1:
        return model
    # The gradient of a 1x1 convolution has other strides than its weight, for dimensions of size 1:
    # nothing is copied that would not be copied anyway. For the whole process, since autograd's own
    # thread warns, in every later step; can go when DDP compares such strides as equal ones.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    with warnings.catch_warnings():
        # PyTorch 2.13 has a new name for the argument; older ones know only this. Can go with them.
        warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")
        return DistributedDataParallel(model, broadcast_buffers=False)
