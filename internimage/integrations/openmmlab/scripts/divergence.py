"""A run whose loss is no number any more ends, with the last good checkpoint kept."""

from __future__ import annotations

import math
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from internimage.script import DivergedError

ADVICE = (
    "a lower optim_wrapper.optimizer.lr, optim_wrapper.clip_grad or training without --amp may help"
)


class DivergenceHook(Hook):
    """Ends a run after some steps in a row whose loss is not finite.

    A single one may be a batch that the loss scaling of float16 skips: it is the weights that must
    be finite when they are saved.

    Args:
        patience: Steps in a row.

    Raises:
        DivergedError: The patience is over, and the message names the step and the terms of the
            loss; or weights that are to be saved are not finite.
    """

    priority = "HIGH"  # before anything is saved

    def __init__(self, patience: int = 5) -> None:
        self.patience = patience
        self._count = 0
        self._text = ""

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict[str, Any] | None = None,
    ) -> None:
        """Look at the losses of a step."""
        # Each value is fetched from the GPU, which waits for the step; the log does so as well.
        values = {
            name: float(value.detach().float().mean()) if isinstance(value, Tensor) else value
            for name, value in (outputs or {}).items()
            if isinstance(value, (Tensor, float, int))
        }
        bad = [name for name, value in values.items() if not math.isfinite(value)]
        if not bad:
            self._count = 0
            return
        self._count += 1
        # The terms say more than their sum, which mmengine calls "loss".
        terms = [name for name in bad if name != "loss"] or bad
        if self._count == 1:
            self._text = f"first in iteration {runner.iter + 1} in {', '.join(terms)}"
        if self._count >= self.patience:
            self._stop(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Keep weights that are no numbers from taking the place of good ones.

        The loss does not tell: another rank's gradient, or one that overflowed, spoils them too.
        """
        # Batch norms' counters are integers, of which isfinite() has nothing to say.
        bad = [
            name
            for name, value in checkpoint["state_dict"].items()
            if value.is_floating_point() and not value.isfinite().all()
        ]
        if bad:
            loss = f"; the loss is not finite {self._text}" if self._count else ""
            raise DivergedError(
                f"expected finite weights to save after iteration {runner.iter + 1}, got NaN or "
                f"infinite ones in {bad[0]} and {len(bad) - 1} others{loss}; {ADVICE}"
            )

    def _stop(self, runner: Runner) -> None:
        raise DivergedError(
            f"expected a finite loss, got none in {self._count} iterations in a row up to "
            f"{runner.iter + 1}, {self._text}; {ADVICE}"
        )
