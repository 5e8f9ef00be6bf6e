"""The exponential moving average of a model's weights, whole or a rank's share of them."""

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor


class WeightAverage:
    """Follows tensors that training changes: ``average += (1 - decay) * (tensor - average)``.

    timm's ModelEmaV3 keeps a second model, which cannot be had of one whose parameters are spread
    over the ranks. This one knows tensors alone, and lends its values to the one model there is.

    Args:
        tensors: Parameters and buffers of floats, or this rank's shares of them.
        decay: In [0, 1): 0 follows at once.
    """

    def __init__(self, tensors: Sequence[Tensor], *, decay: float) -> None:
        self.decay = decay
        self.tensors = [tensor.detach() for tensor in tensors]
        # 16-bit weights change by less than their last bit: their average is kept in float32.
        self.averages = [_widened(tensor) for tensor in self.tensors]

    @torch.no_grad()
    def update(self) -> None:
        """Moves the averages towards the tensors; called after each optimiser step."""
        tensors = [tensor.to(average.dtype) for average, tensor in self._pairs()]
        torch._foreach_lerp_(self.averages, tensors, 1.0 - self.decay)

    @torch.no_grad()
    def restart(self) -> None:
        """Takes the present values of the tensors."""
        for average, tensor in self._pairs():
            average.copy_(tensor)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Lets the tensors hold the averages within the block, and their own values afterwards.

        What the block writes into tensors of 32 bits or more goes into their averages.
        """
        own = {}
        with torch.no_grad():
            for i, (average, tensor) in enumerate(self._pairs()):
                if average.dtype == tensor.dtype:
                    _exchange(average, tensor)
                else:
                    own[i] = tensor.clone()
                    tensor.copy_(average)
        try:
            yield
        finally:
            with torch.no_grad():
                for i, (average, tensor) in enumerate(self._pairs()):
                    if i in own:
                        tensor.copy_(own[i])
                    else:
                        _exchange(average, tensor)

    def _pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        return zip(self.averages, self.tensors, strict=True)


def _widened(tensor: Tensor) -> Tensor:
    if tensor.dtype in (torch.float16, torch.bfloat16):
        return tensor.float()
    return tensor.clone()


def _exchange(a: Tensor, b: Tensor) -> None:
    kept = a.clone()
    a.copy_(b)
    b.copy_(kept)
