"""Half precision inside, float32 outside.

TensorRT from version 10 on takes the precision from the file, so a half file is made of a half
model. What a half model cannot do well stays float32: the sampling of DCNv3 (its translation casts)
and the statistics of LayerNorm (the ONNX operator's ``stash_type``).
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn


class HalfModule(nn.Module):
    """A module in half precision whose callers do not notice.

    Args:
        module: all of its floating-point parameters and buffers are float16.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Cast floating-point inputs to float16 and outputs to float32, nested ones too."""
        args, kwargs = _cast((args, kwargs), torch.float16)
        return _cast(self.module(*args, **kwargs), torch.float32)


def to_half(module: nn.Module) -> HalfModule:
    """Return a copy of a module that calculates in float16 and exchanges float32 with its callers.

    Args:
        module: any whose inputs and outputs are tensors in tuples, lists and dicts; stays as it is.
    """
    # A copy, since the caller compares with the float32 one; half() would change it in place. A new
    # module is in training mode, which the export refuses.
    return HalfModule(copy.deepcopy(module).half()).train(module.training)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, Tensor):
        # Sizes and labels stay whole: float16 counts no further than 2048.
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, tuple) and hasattr(value, "_fields"):  # a named tuple
        return type(value)(*(_cast(item, dtype) for item in value))
    if isinstance(value, tuple | list):
        return type(value)(_cast(item, dtype) for item in value)
    if isinstance(value, dict):
        return {key: _cast(item, dtype) for key, item in value.items()}
    return value
