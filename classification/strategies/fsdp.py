"""Fully sharded data parallelism: every rank keeps a share of weights, gradients and states.

A block at a time is put together for its forward and backward pass, and what is outside of blocks
(stem, downsampling, head) for the whole of them. Weights travel and stay in float32; autocast
computes as under the other strategies, so all of them give the same losses.

Shape legend: N images of a batch on one rank, H W pixels, K classes.
"""

import contextlib
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from yacs.config import CfgNode

from classification.distributed import Ranks
from classification.optim import build_optimizer
from classification.strategies.compiling import compile_blocks
from classification.strategies.precision import Precision
from classification.strategies.process_group import ensure_process_group
from classification.strategies.torch_native import TorchStrategy
from internimage import InternImage
from internimage.blocks import InternImageBlock


class FullySharded(TorchStrategy):
    """The strategy "fsdp"."""

    forward_is_collective = True

    def batch_of_step(self, *, is_last: bool) -> contextlib.AbstractContextManager[Any]:
        """See ``Strategy``."""
        root: Any = self.wrapped
        root.set_requires_gradient_sync(is_last)
        return contextlib.nullcontext()

    def _clip(self, max_norm: float) -> float:
        norm: Any = nn.utils.clip_grad_norm_(self.model.parameters(), max_norm)
        return (norm.full_tensor() if isinstance(norm, DTensor) else norm).item()

    def _whole(self, tensor: Tensor) -> Tensor:
        if not isinstance(tensor, DTensor):
            return tensor
        on_device: Any = tensor.to(self.ranks.device)
        return on_device.full_tensor()

    def _share(self, whole: Tensor, like: Tensor) -> Tensor:
        if not isinstance(like, DTensor):
            return whole
        whole = whole.to(self.ranks.device)
        # Every rank has the whole tensor and cuts out its own share.
        return distribute_tensor(
            whole, like.device_mesh, like.placements, src_data_rank=None
        ).to_local()

    def _local(self, tensor: Tensor) -> Tensor:
        return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def build_fully_sharded(
    config: CfgNode, model: InternImage, ranks: Ranks, *, factor: float
) -> FullySharded:
    """Builds the strategy "fsdp"; see ``build_strategy``."""
    ensure_process_group(ranks)
    mesh = init_device_mesh(ranks.device.type, (ranks.world_size,))
    offload = config.TRAIN.OFFLOAD_PARAM == "cpu"
    policy = (
        CPUOffloadPolicy(pin_memory=ranks.device.type == "cuda") if offload else OffloadPolicy()
    )
    if config.TRAIN.COMPILE:
        compile_blocks(model)
    for module in model.modules():
        if isinstance(module, InternImageBlock):
            fully_shard(module, mesh=mesh, offload_policy=policy)
    # The root, too, gives its weights back after a forward pass. Kept until a backward pass, as by
    # default, they would outlive an evaluation, whose weights a moving average may have lent.
    fully_shard(model, mesh=mesh, offload_policy=policy, reshard_after_forward=True)
    return FullySharded(
        model,
        model,
        build_optimizer(config, model, factor=factor),
        precision=Precision(config, ranks.device),
        # The weights keep their memory format, which shares have to have. The maps take the
        # images' all the same.
        memory_format=(
            torch.channels_last if config.TRAIN.CHANNELS_LAST else torch.contiguous_format
        ),
        ranks=ranks,
    )
