"""What PyTorch's own two strategies share: an optimiser of torch.optim over the model's parameters.

Shape legend: N images of a batch on one rank, H W pixels, K classes.
"""

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from classification.distributed import Ranks
from classification.strategies.base import StepOutcome, Strategy
from classification.strategies.precision import Precision, in_memory_format
from classification.strategies.states import (
    STATE_KEYS,
    check_model_state,
    check_optimizer_state,
    num_bytes,
    to_cpu,
)
from internimage import InternImage


class TorchStrategy(Strategy):
    """Forward, backward and step by PyTorch; how a tensor is shared is for the subclass to say.

    Args:
        model: The classifier.
        wrapped: What is called in its place: the model, or a wrapper that joins the gradients.
        optimizer: Over the model's parameters.
        precision: Autocast and loss scale.
        memory_format: Of the images.
        ranks: This process among all.
    """

    def __init__(
        self,
        model: InternImage,
        wrapped: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        precision: Precision,
        memory_format: torch.memory_format,
        ranks: Ranks,
    ) -> None:
        self.model = model
        self.wrapped = wrapped
        self.optimizer = optimizer
        self.precision = precision
        self.memory_format = memory_format
        self.ranks = ranks

    @abstractmethod
    def _whole(self, tensor: Tensor) -> Tensor:
        """Returns the whole of a shared tensor; *collective*."""

    @abstractmethod
    def _share(self, whole: Tensor, like: Tensor) -> Tensor:
        """Returns this rank's share of a tensor, where and as long as ``like``."""

    @abstractmethod
    def _local(self, tensor: Tensor) -> Tensor:
        """Returns the memory of this rank behind a shared tensor."""

    @property
    def _local_optimizer(self) -> torch.optim.Optimizer:
        """The optimiser that makes this rank's steps."""
        return self.optimizer

    def forward(self, inputs: Tensor | tuple[Tensor, ...]) -> Tensor:
        """See ``Strategy``."""
        with self.precision.autocast():
            return self.wrapped(in_memory_format(inputs, self.memory_format)).float()

    def backward(self, loss: Tensor, *, is_last: bool) -> None:
        """See ``Strategy``."""
        self.precision.scaler.scale(loss).backward()

    def step(self, *, clip_grad: float) -> StepOutcome:
        """See ``Strategy``."""
        scaler = self.precision.scaler
        scaler.unscale_(self.optimizer)
        norm = self._clip(clip_grad or math.inf)
        scale = scaler.get_scale()
        if scaler.is_enabled():
            scaler.step(self.optimizer)
            scaler.update()
        elif math.isfinite(norm):
            self.optimizer.step()
        self.optimizer.zero_grad()
        return StepOutcome(norm, skipped=scaler.get_scale() < scale)

    def _clip(self, max_norm: float) -> float:
        return nn.utils.clip_grad_norm_(self.model.parameters(), max_norm).item()

    def model_state(self) -> dict[str, Tensor]:
        """See ``Strategy``."""
        return self._gather(self.model.state_dict())

    def load_model_state(self, state: Mapping[str, Tensor]) -> None:
        """See ``Strategy``."""
        own = self.model.state_dict()
        check_model_state(state, {key: tensor.shape for key, tensor in own.items()})
        for key, tensor in own.items():
            self._local(tensor).copy_(self._share(state[key], tensor))

    def optimizer_state(self) -> dict[str, Any]:
        """See ``Strategy``."""
        keys = STATE_KEYS[type(self._local_optimizer)]
        states = {
            name: self._gather({key: state[key] for key in keys})
            for name, state in self._named_states().items()
        }
        if not self.ranks.is_main:
            return {}
        return {"optimizer": states, "scaler": self.precision.scaler.state_dict()}

    def load_optimizer_state(self, state: Mapping[str, Any]) -> None:
        """See ``Strategy``."""
        scaler = self.precision.scaler
        named = self._named_parameters()
        shapes = {name: parameter.shape for name, parameter in named.items()}
        kind = type(self._local_optimizer)
        check_optimizer_state(state, shapes, kind, has_scale=scaler.is_enabled())
        if scaler.is_enabled():
            scaler.load_state_dict(dict(state["scaler"]))
        names = {parameter: name for name, parameter in named.items()}
        self._local_optimizer.state.clear()
        for group in self._local_optimizer.param_groups if state["optimizer"] else ():
            for parameter in group["params"]:
                self._local_optimizer.state[parameter] = {
                    key: self._state_value(value, parameter, group)
                    for key, value in state["optimizer"][names[parameter]].items()
                }

    def _state_value(self, value: Tensor, parameter: Tensor, group: dict[str, Any]) -> Tensor:
        if value.ndim == 0:
            # As torch.optim has it: a fused step reads the count on the device.
            return value.to(parameter.device if group.get("fused") else "cpu", copy=True)
        own = torch.zeros_like(parameter.detach())  # its strides, too, which a fused step asks for
        self._local(own).copy_(self._share(value, own))
        return own

    def _named_states(self) -> dict[str, dict[str, Tensor]]:
        """Returns the states by the names of the parameters; *collective*."""
        states = self.optimizer.state
        return {name: states[p] for name, p in self._named_parameters().items() if p in states}

    def _gather(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns whole copies on the CPU of the first rank, one after the other; *collective*."""
        gathered = {}
        for key, tensor in tensors.items():
            whole = self._whole(tensor)
            if self.ranks.is_main:
                gathered[key] = to_cpu(whole)
        return gathered

    def tensors_to_average(self) -> list[Tensor]:
        """See ``Strategy``."""
        tensors = [*self.model.parameters(), *self.model.buffers()]
        return [self._local(tensor.detach()) for tensor in tensors if tensor.is_floating_point()]

    def bytes_held(self) -> dict[str, int]:
        """See ``Strategy``."""
        states = self._local_optimizer.state.values()
        values = [value for state in states for value in state.values() if torch.is_tensor(value)]
        return {
            "parameters": sum(num_bytes(self._local(p)) for p in self.model.parameters()),
            "optimizer": sum(num_bytes(self._local(value)) for value in values),
        }

    def close(self) -> None:
        """See ``Strategy``."""
        del self.wrapped, self.model, self.optimizer
