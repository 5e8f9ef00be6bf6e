"""Class weights that help a training to begin, and are gone when it ends."""

from __future__ import annotations

import warnings
from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn


@HOOKS.register_module()
class FadeClassWeightsHook(Hook):
    """Moves the class weights of a head's losses to 1, step by step.

    Where one class has nearly all pixels, weights let the others be learned, and make the segmentor
    see them where they are not. What is learned stays when the weights go.

    Args:
        begin: The step at which the weights begin to change.
        end: The step from which on they are 1.
        part: The part of the model whose losses are meant.

    Raises:
        ValueError: ``begin`` is negative, or ``end`` not behind it.
    """

    def __init__(self, begin: int, end: int, *, part: str = "decode_head") -> None:
        if not 0 <= begin < end:
            raise ValueError(
                f"FadeClassWeightsHook: expected 0 <= begin < end, got begin = {begin}, end = {end}"
            )
        self.begin = begin
        self.end = end
        self.part = part
        self._weighted: list[tuple[Any, list[float]]] = []

    def before_train(self, runner: Runner) -> None:
        """Find the losses with weights; warn where there are none."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        part = getattr(model, self.part, None)
        losses: list[Any] = list(part.modules()) if isinstance(part, nn.Module) else []
        self._weighted = [
            (loss, list(loss.class_weight))
            for loss in losses
            if getattr(loss, "class_weight", None) is not None
        ]
        if not self._weighted:
            warnings.warn(
                f"FadeClassWeightsHook has no effect: no loss of {self.part} has a class_weight",
                stacklevel=2,
            )

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict[str, Any] | None = None
    ) -> None:
        """Set the weights of this step: those of a run that goes on are the same."""
        share = (runner.iter - self.begin) / (self.end - self.begin)
        share = min(max(share, 0.0), 1.0)
        for loss, weights in self._weighted:
            loss.class_weight = [weight + share * (1 - weight) for weight in weights]

    def after_train(self, runner: Runner) -> None:
        """Give the losses their own weights back."""
        for loss, weights in self._weighted:
            loss.class_weight = weights
