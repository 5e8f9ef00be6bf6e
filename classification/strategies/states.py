"""The one form of a model's and an optimiser's state, whatever strategy saved it."""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

# What the optimisers of classification.optim keep for a parameter, in the order in which all ranks
# put it together.
STATE_KEYS: dict[type[torch.optim.Optimizer], tuple[str, ...]] = {
    torch.optim.AdamW: ("step", "exp_avg", "exp_avg_sq"),
    torch.optim.SGD: ("momentum_buffer",),
}


def check_model_state(state: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> None:
    """Checks that a state is of this model.

    Args:
        state: What is to be loaded.
        shapes: The whole shape of each of the model's entries.

    Raises:
        ValueError: The keys or a shape differ.
    """
    _check_names("load_model_state", state, shapes)
    for key, shape in shapes.items():
        if state[key].shape != shape:
            raise ValueError(
                f"load_model_state: expected {key} of shape {tuple(shape)}, "
                f"got {tuple(state[key].shape)}"
            )


def check_optimizer_state(
    state: Mapping[str, Any],
    shapes: Mapping[str, torch.Size],
    kind: type[torch.optim.Optimizer],
    *,
    has_scale: bool,
) -> None:
    """Checks that a state is of this optimiser over this model's parameters.

    Args:
        state: What is to be loaded.
        shapes: The whole shape of each parameter that learns.
        kind: The optimiser.
        has_scale: Whether the run scales its loss.

    Raises:
        ValueError: A name, a value or a shape differs.
    """
    function = "load_optimizer_state"
    states: Mapping[str, Mapping[str, Tensor]] = state["optimizer"]
    if states:  # before the first step there is none
        _check_names(function, states, shapes)
    for name, values in states.items():
        if set(values) != set(STATE_KEYS[kind]):
            raise ValueError(
                f"{function}: expected for {name} {sorted(STATE_KEYS[kind])} of {kind.__name__}, "
                f"got {sorted(values)}"
            )
        for key, value in values.items():
            shape = torch.Size() if key == "step" else shapes[name]
            if value.shape != shape:
                raise ValueError(
                    f"{function}: expected {key} of {name} of shape {tuple(shape)}, "
                    f"got {tuple(value.shape)}"
                )
    if bool(state["scaler"]) != has_scale:
        raise ValueError(
            f"{function}: expected a loss scale as AMP_TYPE and TRAIN.GRAD_SCALER say = "
            f"{has_scale}, got {bool(state['scaler'])}"
        )


def to_cpu(tensor: Tensor) -> Tensor:
    """Returns a contiguous copy on the CPU."""
    return tensor.detach().to("cpu", copy=True).contiguous()


def num_bytes(tensor: Tensor) -> int:
    """Returns the bytes of a tensor's values."""
    return tensor.numel() * tensor.element_size()


def _check_names(function: str, got: Collection[str], expected: Collection[str]) -> None:
    missing, unknown = sorted(set(expected) - set(got)), sorted(set(got) - set(expected))
    if missing or unknown:
        raise ValueError(
            f"{function}: expected the state of this model, got one without {missing[:3]} "
            f"({len(missing)} in all) and with the unknown {unknown[:3]} ({len(unknown)})"
        )
