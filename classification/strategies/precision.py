"""The precision of a run: autocast around forward, loss scaling around backward."""

import math

import torch
from torch import Tensor, nn
from yacs.config import CfgNode

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


class Precision:
    """How AMP_OPT_LEVEL, AMP_TYPE and TRAIN.GRAD_SCALER say to compute.

    Weights, gradients and states of the optimiser are float32 in any case.

    Args:
        config: The settings.
        device: Where the model computes.
    """

    def __init__(self, config: CfgNode, device: torch.device) -> None:
        self.device = device
        self.dtype = None if config.AMP_OPT_LEVEL == "O0" else DTYPES[config.AMP_TYPE]
        # bfloat16 has the range of float32: nothing underflows.
        scales = self.dtype == torch.float16 and config.TRAIN.GRAD_SCALER
        self.scaler = torch.amp.GradScaler(device.type, enabled=scales)

    def autocast(self) -> torch.autocast:
        """Returns the context of a forward pass; it works as a decorator, too."""
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype is not None)

    def count_step(self, *, overflowed: bool) -> None:
        """Adapts the scale to a step that another optimiser than torch.optim's made or skipped.

        GradScaler wants to see gradients: it is shown one of a single number.
        """
        if not self.scaler.is_enabled():
            return
        number = nn.Parameter(torch.zeros((), device=self.device))
        number.grad = torch.full_like(number, math.inf if overflowed else 0.0)
        stand_in = torch.optim.SGD([number], lr=0.0)
        self.scaler.unscale_(stand_in)
        self.scaler.step(stand_in)
        self.scaler.update()


def in_memory_format(
    inputs: Tensor | tuple[Tensor, ...], memory_format: torch.memory_format
) -> Tensor | tuple[Tensor, ...]:
    """Returns the same inputs with the images (N, 3, H, W) in a memory format."""
    if isinstance(inputs, Tensor):
        return inputs.contiguous(memory_format=memory_format)
    images, *meta = inputs
    return images.contiguous(memory_format=memory_format), *meta
