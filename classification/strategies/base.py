"""What every strategy of sharing a model among ranks can do.

Shape legend: N images of a batch on one rank, H W pixels, K classes.
"""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from internimage import InternImage


class StepOutcome(NamedTuple):
    """What became of an optimiser step.

    Args:
        gradient_norm: Total norm of the gradient of all ranks, before clipping.
        skipped: Whether the weights stayed as they were, since the scaled float16 gradient
            overflowed; the scale is smaller now.
    """

    gradient_norm: float
    skipped: bool = False


class Strategy(ABC):
    """A model spread over the ranks, its optimiser, and their precision.

    Methods marked *collective* are called by all ranks at once.

    Args:
        model: The classifier itself; its parameters may be shares of the whole ones.
        optimizer: Its ``param_groups`` hold the rates, which the schedule sets.
    """

    model: InternImage
    optimizer: torch.optim.Optimizer
    forward_is_collective: bool = False
    """Whether ranks wait for each other in ``forward``: all must then call it equally often."""

    @abstractmethod
    def forward(self, inputs: Tensor | tuple[Tensor, ...]) -> Tensor:
        """Returns the logits (N, K), float32, of images (N, 3, H, W); any mode of the model.

        Under autocast, compiled, checkpointed, in channels-last memory as the settings say.

        Args:
            inputs: Images, or (images, times, places) for a model that takes them.
        """

    @abstractmethod
    def backward(self, loss: Tensor, *, is_last: bool) -> None:
        """Adds the gradients of a batch; those of the ranks are joined at the last one of a step.

        Args:
            loss: Mean of the batch, divided by the batches of a step.
            is_last: Whether it is the last batch of the step. The engine calls ``forward`` of a
                batch within ``batch_of_step`` with the same answer.
        """

    def batch_of_step(self, *, is_last: bool) -> contextlib.AbstractContextManager[Any]:
        """Returns the context of forward and backward of one batch of a step."""
        return contextlib.nullcontext()

    @abstractmethod
    def step(self, *, clip_grad: float) -> StepOutcome:
        """Clips the gradient, makes the optimiser step, forgets the gradient; *collective*.

        A gradient that is not finite without scaling is reported and makes no step.

        Args:
            clip_grad: Total norm to clip to; 0 clips nothing.
        """

    def settle(self, inputs: Tensor | tuple[Tensor, ...]) -> None:  # noqa: B027, most need nothing
        """Brings the order in which gradients are summed to what it is after the first step.

        *Collective*, before a state of a later step is taken up; weights, buffers and random states
        are of no use afterwards.

        Args:
            inputs: What ``forward`` takes; the values do not matter.
        """

    @abstractmethod
    def model_state(self) -> dict[str, Tensor]:
        """Returns the whole weights and buffers by the model's keys; *collective*.

        They are those that ``forward`` computes with, exchanged ones included. On the CPU, on the
        first rank; other ranks get an empty dict.
        """

    @abstractmethod
    def load_model_state(self, state: Mapping[str, Tensor]) -> None:
        """Takes up what ``model_state`` of any strategy returned; *collective*, whole on each rank.

        Raises:
            ValueError: The keys or shapes are of another model.
        """

    @abstractmethod
    def optimizer_state(self) -> dict[str, Any]:
        """Returns the whole state of optimiser and loss scale; *collective*.

        The same form for every strategy and number of ranks: ``{"optimizer": {parameter's name:
        {"exp_avg": ..., "step": ...}}, "scaler": {...}}``, on the CPU, on the first rank; other
        ranks get an empty dict. The inner dict is empty before the first step.
        """

    @abstractmethod
    def load_optimizer_state(self, state: Mapping[str, Any]) -> None:
        """Takes up what ``optimizer_state`` of any strategy returned; *collective*.

        Whole on each rank.

        Raises:
            ValueError: The state is of another model or optimiser.
        """

    @abstractmethod
    def tensors_to_average(self) -> list[Tensor]:
        """Returns this rank's share of the parameters and of the buffers of floats.

        A moving average follows them. Always the same tensors in the same order: exchanged in place
        they change what ``forward`` and ``model_state`` see, until they are exchanged back before
        the next ``step``.
        """

    @abstractmethod
    def bytes_held(self) -> dict[str, int]:
        """Returns the bytes of ``parameters`` and ``optimizer`` states that this rank holds."""

    def _named_parameters(self) -> dict[str, nn.Parameter]:
        """Returns the parameters that learn."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def buffers(self) -> Iterator[tuple[str, Tensor]]:
        """Yields this rank's own buffers: running statistics differ between ranks in an epoch."""
        return self.model.named_buffers()

    @abstractmethod
    def close(self) -> None:
        """Lets go of what holds the process group; nothing of the strategy is used afterwards."""
