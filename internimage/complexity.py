"""Parameters and multiply-accumulates of a model at a size of image."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from internimage.metaformer import InternImageMetaFormer, with_unknown_meta
from internimage.model import InternImage
from ops_dcnv3.modules import DCNv3

SAMPLING_OPERATIONS = 5
"""Operations a sampling point and channel: four corners to blend, one weight to apply."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Complexity:
    """What one image costs.

    Args:
        parameters: number of parameters.
        macs: multiply-accumulates of convolutions, linear layers and attention.
        sampling: operations of DCNv3's sampling, ``5 * N * P * C`` summed over the blocks, with N
            output pixels, P sampling points and C channels.
    """

    parameters: int
    macs: int
    sampling: int

    @property
    def total(self) -> int:
        """MACs and sampling together: what the published tables call FLOPs."""
        return self.macs + self.sampling


def count_complexity(model: InternImage, image_size: int | tuple[int, int]) -> Complexity:
    """Count for one image of ``image_size`` (side, or height and width, pixels).

    Nothing is computed: weights and image are stand-ins without storage.

    Raises:
        ValueError: the head does not allow the size.
    """
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    sampling = 0

    def count_sampling(module: DCNv3, _: Any, output: Tensor) -> None:
        nonlocal sampling
        sampling += SAMPLING_OPERATIONS * output.numel() * module.geometry.num_points

    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    stand_ins = {name: torch.empty_like(value, device="meta") for name, value in state.items()}
    dtype = next(model.parameters()).dtype
    image = torch.empty(1, model.in_chans, height, width, device="meta", dtype=dtype)
    x = with_unknown_meta(image) if isinstance(model, InternImageMetaFormer) else image
    hooks = [
        module.register_forward_hook(count_sampling)
        for module in model.modules()
        if isinstance(module, DCNv3)
    ]
    was_training = model.training
    try:
        model.eval()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            functional_call(model, stand_ins, (x,))
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return Complexity(
        parameters=count_parameters(model), macs=counter.get_total_flops() // 2, sampling=sampling
    )


def count_parameters(model: nn.Module, *, trainable_only: bool = False) -> int:
    """Return the number of parameters."""
    return sum(
        parameter.numel()
        for parameter in model.parameters()
        if parameter.requires_grad or not trainable_only
    )
