"""The one engine: optimiser steps over an epoch, from any step of it on, and evaluation.

Shape legend: N images of a batch on one rank, H W pixels, K classes.
"""

import contextlib
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from yacs.config import CfgNode

from classification.average import WeightAverage
from classification.data import build_mixup
from classification.data.batch import Batch, Data
from classification.distributed import (
    Ranks,
    gather_on_first_rank,
    start_sum_over_ranks,
    sum_over_ranks,
)
from classification.evaluation import Scores, evaluate, to_inputs
from classification.optim import build_scheduler, learning_rate_factor
from classification.random_states import get_random_states, seed_everything, set_random_states
from classification.results import BadFilesError, EpochResult, StepResult, Sums
from classification.strategies import build_strategy
from internimage import InternImage
from internimage.metaformer import InternImageMetaFormer, with_unknown_meta
from internimage.processes import REQUESTS
from internimage.script import DivergedError

MAX_SKIPPED_STEPS = 50
"""Steps in a row that may be skipped while the loss scale of float16 falls: 2**-50 is nothing."""


class Engine:
    """Trains one model: optimiser, schedule, weight average and distribution in one place.

    Its place in the run is ``epoch``, counted from 0, and ``step_in_epoch``, the steps of it that
    are made; after the last one it stays in the epoch until ``next_epoch``.

    Args:
        config: The settings.
        model: A classifier, (N, 3, H, W) -> (N, K), with the same weights on every rank.
        data: The images; K is at least the number of its class names.
        ranks: This process among all.
    """

    def __init__(self, config: CfgNode, model: InternImage, data: Data, ranks: Ranks) -> None:
        self.config = config
        self.data = data
        self.ranks = ranks
        self.accumulation_steps = config.TRAIN.ACCUMULATION_STEPS
        self.steps_per_epoch = len(data.train_loader) // self.accumulation_steps
        self.epoch = config.TRAIN.START_EPOCH
        self.step_in_epoch = 0
        self.sums = Sums()
        self.skipped_steps = 0  # in a row
        self.random_states: dict[str, Any] | None = None  # to begin with, in place of a seed
        factor = learning_rate_factor(config, ranks.world_size)
        self.strategy = build_strategy(config, model, ranks, factor=factor)
        self.scheduler = build_scheduler(
            config, self.strategy.optimizer, steps_per_epoch=self.steps_per_epoch, factor=factor
        )
        self.mixup = build_mixup(config, num_classes=model.num_classes)
        self.average: WeightAverage | None = None
        if config.TRAIN.EMA.ENABLE:
            tensors = self.strategy.tensors_to_average()
            self.average = WeightAverage(tensors, decay=config.TRAIN.EMA.DECAY)

    @property
    def model(self) -> InternImage:
        """The model in training."""
        return self.strategy.model

    @property
    def step(self) -> int:
        """Optimiser steps since the start of the run."""
        return self.epoch * self.steps_per_epoch + self.step_in_epoch

    def final_weights(self) -> contextlib.AbstractContextManager[None]:
        """Lets the model hold the weights to evaluate and save: the average where EMA is on."""
        return contextlib.nullcontext() if self.average is None else self.average.in_place()

    def train_epoch(
        self,
        on_step: Callable[[StepResult], object] = lambda result: None,
        stop_signal: Callable[[], int] = lambda: 0,
    ) -> EpochResult:
        """Trains on every image of the epoch once, or on those behind ``step_in_epoch``.

        Args:
            on_step: Called after each step, on every rank; the state may be saved in it.
            stop_signal: The signal that asked this rank to stop; 0 while there is none.

        Raises:
            BadFilesError: More files than DATA.MAX_BAD_SHARE cannot be read.
            DivergedError: The gradient is not finite; the weights are as before the step.
        """
        if self.random_states is not None:
            set_random_states(self.random_states, self.ranks.device)
            self.random_states = None
        elif self.step_in_epoch == 0:
            seed_everything(self.config.SEED, self.ranks, epoch=self.epoch + 1)  # 0: the weights
        self.model.train()
        first = self.step_in_epoch * self.accumulation_steps
        steps = range(self.step_in_epoch, self.steps_per_epoch)
        batches = self.data.train_loader.batches(self.epoch, first) if steps else iter(())
        for _ in steps:
            started = time.perf_counter()
            step_batches = [next(batches) for _ in range(self.accumulation_steps)]
            data_seconds = time.perf_counter() - started
            result = self._train_step(step_batches, started, data_seconds, stop_signal())
            on_step(result)
            self._check_bad_files(self.sums.num_bad_files, self.data.num_train_images, "training")
        return self._epoch_result()

    def end_epoch(self) -> None:
        """Gives all ranks the mean of their running statistics; *collective*.

        From here on all have one model, to be evaluated and trained on. A state to go on from is
        saved before.
        """
        self._share_buffers()
        if self.average is not None:
            with self.average.in_place():
                self._share_buffers()

    def next_epoch(self) -> None:
        """Goes to the start of the epoch that follows."""
        self.epoch += 1
        self.step_in_epoch = 0
        self.sums = Sums()

    def evaluate(self, on_batch: Callable[[tuple[str, ...]], object] = lambda _: None) -> Scores:
        """Evaluates the final weights on the test images; *collective*.

        Args:
            on_batch: Called after each batch, equally often on every rank, with the files of it
                that could not be read; may raise.

        Raises:
            BadFilesError: More files than DATA.MAX_BAD_SHARE cannot be read.
        """
        self.model.eval()
        with self.final_weights():
            scores = evaluate(
                self.strategy.forward,
                self.data,
                self.ranks,
                filler=self._filler(1) if self.strategy.forward_is_collective else None,
                on_batch=on_batch,
            )
        self._check_bad_files(scores.num_bad_files, self.data.num_test_images, "test")
        return scores

    def state_dict(self) -> dict[str, Any]:
        """Returns all that training goes on from; *collective*.

        On the first rank; the others get an empty dict. The weights have the mean of the ranks'
        running statistics, as after ``end_epoch``; each rank's own are among ``ranks``.
        """
        local: dict[str, Any] = {
            "random": get_random_states(self.ranks.device),
            "sums": asdict(self.sums),
            "buffers": self._own_buffers(),
        }
        state: dict[str, Any] = {"model": self._whole_state(), "model_ema": None}
        if self.average is not None:
            with self.average.in_place():
                state["model_ema"] = self._whole_state()
                local["average_buffers"] = self._own_buffers()
        state |= self.strategy.optimizer_state()
        locals_ = gather_on_first_rank(self.ranks, local)
        place = {
            "epoch": self.epoch,
            "step_in_epoch": self.step_in_epoch,
            "steps_per_epoch": self.steps_per_epoch,
        }
        return {**state, **place, "ranks": locals_} if self.ranks.is_main else {}

    def final_state(self) -> dict[str, Tensor]:
        """Returns the whole final weights; *collective*, on the first rank, else empty."""
        with self.final_weights():
            return self._whole_state()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up a state of ``state_dict``, of any strategy; *collective*.

        One made by another number of ranks, or in other steps an epoch, can be taken up at the end
        of an epoch alone.

        Raises:
            ValueError: The state is of another model or optimiser, within an epoch of other ranks,
                or only one of both has averaged weights.
        """
        if (state["model_ema"] is None) != (self.average is None):
            raise ValueError(
                "Engine.load_state_dict: expected averaged weights exactly with TRAIN.EMA.ENABLE = "
                f"{self.average is not None}, got a state with them "
                f"{state['model_ema'] is not None}"
            )
        self.strategy.settle(self._filler(self.config.DATA.BATCH_SIZE))
        if self.average is not None:
            self.strategy.load_model_state(state["model_ema"])
            self.average.restart()
        self.strategy.load_model_state(state["model"])
        self.strategy.load_optimizer_state(
            {"optimizer": state["optimizer"], "scaler": state["scaler"]}
        )
        self.epoch, self.step_in_epoch = state["epoch"], state["step_in_epoch"]
        if len(state["ranks"]) != self.ranks.world_size:
            self._load_others(state)
        else:
            self._load_own(state["ranks"][self.ranks.rank])
        if state["step_in_epoch"] == state["steps_per_epoch"]:
            self.step_in_epoch = self.steps_per_epoch  # which may be another number now
        elif state["steps_per_epoch"] != self.steps_per_epoch:
            raise ValueError(
                f"Engine.load_state_dict: expected {state['steps_per_epoch']} steps an epoch for a "
                f"state made within one, got {self.steps_per_epoch}"
            )

    def _load_own(self, local: dict[str, Any]) -> None:
        """Takes up what differs between ranks."""
        self.sums = Sums(**local["sums"])
        self._set_buffers(local["buffers"])
        if self.average is not None:
            with self.average.in_place():
                self._set_buffers(local["average_buffers"])
        self.random_states = local["random"]

    def _load_others(self, state: dict[str, Any]) -> None:
        """Takes up the end of an epoch that another number of ranks has made."""
        if state["step_in_epoch"] != state["steps_per_epoch"]:
            raise ValueError(
                f"Engine.load_state_dict: expected {len(state['ranks'])} ranks for a state made "
                f"within an epoch, got {self.ranks.world_size}; at the end of one they may change"
            )
        sums = [local["sums"] for local in state["ranks"]]
        total = {key: sum(values[key] for values in sums) for key in sums[0]}
        images = {"loss": total["loss"], "num_images": total["num_images"]}
        self.sums = Sums(
            **{key: value / len(sums) for key, value in total.items() if key not in images},
            **{key: value / self.ranks.world_size for key, value in images.items()},
        )

    def _train_step(
        self, batches: list[Batch], started: float, data_seconds: float, stop_signal: int
    ) -> StepResult:
        """Makes one optimiser step."""
        self.scheduler.step_update(self.step)
        learning_rate = max(group["lr"] for group in self.strategy.optimizer.param_groups)
        bad_files = tuple(name for batch in batches for name in batch.bad_files)
        messages = self._send(stop_signal, len(bad_files))
        loss_sum = torch.zeros((), device=self.ranks.device)
        for index, batch in enumerate(batches):
            is_last = index == len(batches) - 1
            with self.strategy.batch_of_step(is_last=is_last):
                loss = self._loss(batch) / len(batches)
                self.strategy.backward(loss, is_last=is_last)
            loss_sum += loss.detach().float()
        clip = self.config.TRAIN.CLIP_GRAD
        norm, skipped = self.strategy.step(clip_grad=clip)
        self.skipped_steps = self.skipped_steps + 1 if skipped else 0
        # The norm is of the gradient of all ranks, so all of them see the same and stop together.
        if (not skipped and not norm < float("inf")) or self.skipped_steps > MAX_SKIPPED_STEPS:
            advice = "TRAIN.CLIP_GRAD" if clip else "a TRAIN.CLIP_GRAD above 0"
            raise DivergedError(
                f"the training diverged: loss {loss_sum.item():.4g}, gradient norm {norm} in epoch "
                f"{self.epoch + 1}, step {self.step + 1}, at learning rate {learning_rate:.3g}; "
                f"a lower TRAIN.BASE_LR or {advice} may help"
            )
        if self.average is not None and not skipped:
            self.average.update()
        self.step_in_epoch += 1
        stop, num_bad_files = messages()
        num_images = sum(len(batch.labels) for batch in batches)
        result = StepResult(
            epoch=self.epoch,
            step=self.step,
            loss=loss_sum.item(),
            gradient_norm=norm,
            learning_rate=learning_rate,
            num_images=num_images,
            seconds=time.perf_counter() - started,
            data_seconds=data_seconds,
            bad_files=bad_files,
            stop=stop,
        )
        self._add(result, num_bad_files, skipped)
        return result

    def _loss(self, batch: Batch) -> Tensor:
        """Mean loss of a batch."""
        images, *meta = to_inputs(batch, self.data.finish_train, self.ranks.device)
        targets = batch.labels.to(self.ranks.device, non_blocking=True)  # (N,)
        smoothing = self.config.MODEL.LABEL_SMOOTHING
        if self.mixup is not None:
            images, targets = self.mixup(images, targets)  # (N, K), smoothed
            smoothing = 0.0
        logits = self.strategy.forward((images, *meta) if meta else images)
        return F.cross_entropy(logits.float(), targets, label_smoothing=smoothing)

    def _send(self, stop_signal: int, num_bad_files: int) -> Callable[[], tuple[int, int]]:
        """Starts to tell all ranks of a signal and to add up bad files; the result is waited for.

        Returns:
            What returns the signal, of whichever rank, and the sum.
        """
        values = [num_bad_files, *(stop_signal == number for number in REQUESTS)]
        wait = start_sum_over_ranks(
            torch.tensor(values, dtype=torch.int64, device=self.ranks.device)
        )

        def receive() -> tuple[int, int]:
            total, *counts = wait().tolist()
            received = [number for number, count in zip(REQUESTS, counts, strict=True) if count]
            return (received[-1] if received else 0), total

        return receive

    def _filler(self, num_images: int) -> Tensor | tuple[Tensor, ...]:
        """Returns what a forward pass takes, of zeros."""
        size = self.config.DATA.IMG_SIZE
        images = torch.zeros(num_images, 3, size, size, device=self.ranks.device)
        is_metaformer = isinstance(self.model, InternImageMetaFormer)
        return with_unknown_meta(images) if is_metaformer else images

    def _add(self, result: StepResult, num_bad_files: int, skipped: bool) -> None:
        sums = self.sums
        sums.loss += result.loss * result.num_images
        if not skipped:
            sums.gradient_norm += result.gradient_norm
            sums.num_norms += 1
        sums.num_images += result.num_images
        sums.seconds += result.seconds
        sums.data_seconds += result.data_seconds
        sums.num_bad_files += num_bad_files
        sums.learning_rate = result.learning_rate

    def _check_bad_files(self, count: float, num_images: int, kind: str) -> None:
        """Checks the share of bad files; all ranks know the same count.

        The shares of the ranks are disjoint, so in an epoch no file is counted twice.
        """
        if count > self.config.DATA.MAX_BAD_SHARE * num_images:
            raise BadFilesError(
                f"{count:.0f} of {num_images} {kind} files cannot be read, more than "
                f"DATA.MAX_BAD_SHARE = {self.config.DATA.MAX_BAD_SHARE:g}"
            )

    def _epoch_result(self) -> EpochResult:
        sums = self.sums
        values = [sums.loss, sums.num_images, sums.data_seconds, sums.seconds]
        totals = torch.tensor(values, dtype=torch.float64).to(self.ranks.device)
        loss, num_images, data_seconds, seconds = sum_over_ranks(totals).tolist()
        return EpochResult(
            train_loss=loss / num_images,
            gradient_norm=sums.gradient_norm / max(sums.num_norms, 1),
            learning_rate=sums.learning_rate,
            images_per_second=num_images * self.ranks.world_size / seconds,
            data_share=data_seconds / seconds,
            num_bad_files=int(sums.num_bad_files),
        )

    def _whole_state(self) -> dict[str, Tensor]:
        """Returns the model's state with the mean of all ranks' running statistics."""
        buffers = {name: value.cpu() for name, value in self._mean_buffers().items()}
        state = self.strategy.model_state()
        return {key: buffers.get(key, value) for key, value in state.items()}

    def _own_buffers(self) -> dict[str, Tensor]:
        return {name: buffer.detach().cpu().clone() for name, buffer in self.strategy.buffers()}

    def _mean_buffers(self) -> dict[str, Tensor]:
        """Returns each floating-point buffer's mean over the ranks; *collective*."""
        return {
            name: sum_over_ranks(buffer.detach()) / self.ranks.world_size
            for name, buffer in self.strategy.buffers()
            if buffer.is_floating_point()
        }

    def _share_buffers(self) -> None:
        self._set_buffers(self._mean_buffers())

    @torch.no_grad()
    def _set_buffers(self, values: dict[str, Tensor]) -> None:
        for name, buffer in self.strategy.buffers():
            if name in values:
                buffer.copy_(values[name])
