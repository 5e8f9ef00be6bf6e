"""Random numbers that depend on the step alone, so that a run that goes on draws the same ones.

mmengine keeps no state of random numbers in its checkpoints. Instead of storing one a rank, every
rank starts from a seed made of the run's, the step and its own number before it loads the images
of a step, and again before it computes it. Workers that load ahead have numbers of their own, which
depend on when they were started: the images are the same then, what is drawn for them is not.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.registry import FUNCTIONS
from mmengine.runner import Runner


@FUNCTIONS.register_module()
def keep_worker_seed(worker_id: int) -> None:
    """Leave a loader's worker with PyTorch's seed.

    mmengine's own choice gives the workers of every epoch, and of every run that goes on, the
    random numbers of the first one.
    """


class StepSeedHook(Hook):
    """Seeds Python, numpy and PyTorch by the step."""

    priority = "VERY_HIGH"

    def before_train(self, runner: Runner) -> None:
        """Before the first step, or the one where the run goes on."""
        self._seed(runner, runner.iter, 0)

    def before_train_epoch(self, runner: Runner) -> None:
        """Before an epoch's workers start."""
        self._seed(runner, runner.iter, 0)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Before a step is computed, whoever loaded its images."""
        self._seed(runner, runner.iter, 1)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Before the images of the next step are loaded."""
        self._seed(runner, runner.iter + 1, 0)

    def after_val_epoch(self, runner: Runner, metrics: Any = None) -> None:
        """An evaluation leaves no trace in the numbers of the training."""
        self._seed(runner, runner.iter, 0)

    def _seed(self, runner: Runner, step: int, part: int) -> None:
        # SeedSequence mixes the numbers: neighbouring steps and ranks get unrelated seeds.
        words = np.random.SeedSequence([runner.seed, step, runner.rank, part]).generate_state(1)
        seed = int(words[0])  # of 32 bits: numpy takes no larger ones
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
