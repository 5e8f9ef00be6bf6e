"""Mixed precision on a CPU: mmengine's own wrapper works on GPUs only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn
from torch.utils._pytree import tree_map


@OPTIM_WRAPPERS.register_module()
class HostAmpOptimWrapper(OptimWrapper):
    """Computes the backbone in bfloat16, whose range needs no scaling of the loss.

    The heads stay in float32: mmcv's operators know no bfloat16 on a CPU.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Surround the forward pass of a model with a backbone."""
        # The model comes here at each step alone: the wrapper is not given it when it is built.
        whole: Any = model.module if is_model_wrapper(model) else model
        backbone = whole.backbone
        forward = backbone.forward

        def compute(*args: Any, **kwargs: Any) -> Any:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                maps = forward(*args, **kwargs)
            # Outside of autocast, so that the heads' own layers compute in float32 as well. Once
            # mmcv's operators take bfloat16 on CPUs, autocast can surround the whole model.
            return tree_map(torch.Tensor.float, maps)

        # On the object, where a call of the module looks before its class; deleting uncovers that.
        backbone.forward = compute
        try:
            with super().optim_context(model):
                yield
        finally:
            del backbone.forward
