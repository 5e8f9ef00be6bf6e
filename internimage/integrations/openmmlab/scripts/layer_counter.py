"""Counts multiply-accumulates of layers and of attention apart, of tensors without storage too."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import FlopCounterMode

_ATEN = torch.ops.aten
PRODUCTS = frozenset(
    {
        _ATEN.bmm,
        _ATEN.baddbmm,
        _ATEN._scaled_dot_product_efficient_attention,
        _ATEN._scaled_dot_product_flash_attention,
        _ATEN._scaled_dot_product_cudnn_attention,
    }
)
"""Operations between activations, in the counter's names; others have a layer's weights."""


class LayerCounter(FlopCounterMode):
    """Counts the multiply-accumulates of a block, those of layers and of attention apart.

    Args:
        model: Whose passes are to be counted.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(display=False)
        self.model = model
        self.layers = 0
        self.attention = 0
        self._projections = 0

    def __enter__(self) -> LayerCounter:
        super().__enter__()
        # Where a hook cannot be registered, those before it are removed; else __exit__ does so.
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            for module in self.model.modules():
                if isinstance(module, nn.MultiheadAttention):
                    before = module.register_forward_pre_hook(lambda *_: self._project(-1))
                    after = module.register_forward_hook(lambda *_: self._project(1))
                    stack.callback(before.remove)
                    stack.callback(after.remove)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.close()
        super().__exit__(*error)
        # PyTorch counts a multiplication and an addition as two.
        self.layers = self._linear() - self._projections
        self.attention = self.get_total_flops() // 2 - self.layers

    def _linear(self) -> int:
        """Return the multiply-accumulates of activations with weights until now."""
        counts = self.get_flop_counts().get("Global", {})
        return sum(count for op, count in counts.items() if op not in PRODUCTS) // 2

    def _project(self, sign: int) -> None:
        """Take what comes between two calls, of signs -1 and 1, for attention's projections."""
        # They are no modules that are called, and so no layers in the published tables.
        self._projections += sign * self._linear()


class SizesAreNumbers(TorchDispatchMode):
    """Lets a head that asks for the sizes of maps without storage get them.

    mmdet's pixel decoder makes a tensor of them and looks into it: that one stays on the CPU, and
    goes along where it meets those without storage.
    """

    # It can go when that decoder takes the sizes as numbers.
    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        if len({x.is_meta for x in tensors}) == 2:  # both kinds
            args, kwargs = tree_map(_without_storage, (args, kwargs))
        elif tensors and not tensors[0].is_meta and _names_meta(kwargs):
            kwargs["device"] = tensors[0].device
        return func(*args, **kwargs)


def _names_meta(kwargs: dict[str, Any]) -> bool:
    device = kwargs.get("device")
    return device is not None and torch.device(device).type == "meta"


def _without_storage(value: Any) -> Any:
    if isinstance(value, Tensor) and not value.is_meta:
        return torch.empty_like(value, device="meta")
    return value
