"""The precision of a run: autocast around forward, loss scaling around backward."""

import torch
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
