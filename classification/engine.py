"""The one engine: optimiser steps over an epoch, and evaluation.

Shape legend: N images of a batch on one rank, H W pixels, K classes.
"""

import contextlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from timm.utils import distribute_bn
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from yacs.config import CfgNode

from classification.data import Data, build_mixup
from classification.distributed import Ranks, data_parallel, seed_everything, sum_over_ranks
from classification.optim import (
    build_ema,
    build_optimizer,
    build_scheduler,
    learning_rate_factor,
)
from internimage import InternImage
from internimage.param_groups import freeze_stages


class DivergedError(Exception):
    """The gradient is no longer finite."""


@dataclass(frozen=True)
class StepResult:
    """One optimiser step of this rank.

    Args:
        epoch: The epoch it belongs to, counted from 0.
        step: Steps made since the start of the run, this one included.
        loss: Mean loss of this rank's images.
        gradient_norm: Total norm of the gradient of all ranks, before clipping.
        learning_rate: The largest rate of all parameter groups.
    """

    epoch: int
    step: int
    loss: float
    gradient_norm: float
    learning_rate: float


@dataclass(frozen=True)
class EpochResult:
    """One epoch of training on all ranks.

    Args:
        train_loss: Mean loss an image.
        gradient_norm: Mean over the steps of the total gradient norm, before clipping.
        learning_rate: The rate of the last step.
        images_per_second: Training images a second of all ranks together.
    """

    train_loss: float
    gradient_norm: float
    learning_rate: float
    images_per_second: float


@dataclass(frozen=True)
class Scores:
    """An evaluation on all ranks.

    Args:
        loss: Mean cross-entropy an image, without label smoothing.
        top1: Percent of images whose class has the largest logit.
        top5: Percent of images whose class is among the five largest.
        num_images: Images that were evaluated.
    """

    loss: float
    top1: float
    top5: float
    num_images: int


class Engine:
    """Trains one model: optimiser, schedule, weight average and distribution in one place.

    Args:
        config: The settings; TRAIN, AUG, MODEL.LABEL_SMOOTHING and SEED are read.
        model: A classifier, (N, 3, H, W) -> (N, K), with the same weights on every rank.
        data: The images; K is the number of its class names.
        ranks: This process among all.
    """

    def __init__(self, config: CfgNode, model: InternImage, data: Data, ranks: Ranks) -> None:
        self.config = config
        self.data = data
        self.ranks = ranks
        self.accumulation_steps = config.TRAIN.ACCUMULATION_STEPS
        self.steps_per_epoch = len(data.train_loader) // self.accumulation_steps
        self.step = 0  # optimiser steps made so far
        self.model = model.to(ranks.device)
        freeze_stages(self.model, config.TRAIN.OPTIMIZER.FREEZE_BACKBONE or ())
        self.mixup = build_mixup(config, num_classes=len(data.class_names))
        factor = learning_rate_factor(config, ranks.world_size)
        self.optimizer = build_optimizer(config, self.model, factor=factor)
        self.scheduler = build_scheduler(
            config, self.optimizer, steps_per_epoch=self.steps_per_epoch, factor=factor
        )
        self.ema = build_ema(config, self.model)
        self.parallel_model = data_parallel(self.model, ranks)

    @property
    def final_model(self) -> nn.Module:
        """The model that is evaluated and saved: the averaged weights where EMA is on."""
        return self.ema.module if self.ema is not None else self.model

    def train_epoch(
        self, epoch: int, on_step: Callable[[StepResult], object] = lambda result: None
    ) -> EpochResult:
        """Trains on every image once.

        Args:
            epoch: Counted from 0; decides on the order of the images, the augmentation and the
                place in the schedule.
            on_step: Called after each step.

        Raises:
            DivergedError: The gradient is not finite; the weights are as before the step.
        """
        seed_everything(self.config.SEED, self.ranks, epoch=epoch + 1)  # 0 made the weights
        self.data.train_sampler.set_epoch(epoch)
        self.parallel_model.train()
        self.step = epoch * self.steps_per_epoch
        started = time.perf_counter()
        loss_sum = norm_sum = 0.0
        num_images = 0
        batches = iter(self.data.train_loader)
        for _ in range(self.steps_per_epoch):
            step_batches = [next(batches) for _ in range(self.accumulation_steps)]
            result = self._train_step(step_batches, epoch)
            step_images = sum(len(images) for images, _ in step_batches)
            loss_sum += result.loss * step_images
            norm_sum += result.gradient_norm
            num_images += step_images
            on_step(result)
        self._average_batch_norm()
        totals = torch.tensor([loss_sum, num_images], dtype=torch.float64)
        loss_sum, num_images = sum_over_ranks(totals.to(self.ranks.device)).tolist()
        return EpochResult(
            train_loss=loss_sum / num_images,
            gradient_norm=norm_sum / self.steps_per_epoch,
            learning_rate=result.learning_rate,
            images_per_second=num_images / (time.perf_counter() - started),
        )

    def evaluate(self) -> Scores:
        """Evaluates the final model on the test images; see ``evaluate``."""
        return evaluate(self.final_model, self.data.test_loader, device=self.ranks.device)

    def state_dict(self) -> dict[str, Any]:
        """Returns all that training goes on from: weights, average, optimiser."""
        return {
            "model": self.model.state_dict(),
            "model_ema": None if self.ema is None else self.ema.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up a state of ``state_dict``, made with the same settings of the optimiser.

        Raises:
            ValueError: The state is of another model, or only one of both has averaged weights.
        """
        if (state["model_ema"] is None) != (self.ema is None):
            raise ValueError(
                "Engine.load_state_dict: expected averaged weights exactly with TRAIN.EMA.ENABLE = "
                f"{self.ema is not None}, got a state with them {state['model_ema'] is not None}"
            )
        try:
            self.model.load_state_dict(state["model"])
            if self.ema is not None:
                self.ema.module.load_state_dict(state["model_ema"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ValueError(
                f"Engine.load_state_dict: expected the state of this model, got {reason}"
            ) from error

    def _train_step(
        self, batches: list[tuple[torch.Tensor, torch.Tensor]], epoch: int
    ) -> StepResult:
        """Makes one optimiser step."""
        self.scheduler.step_update(self.step)
        learning_rate = max(group["lr"] for group in self.optimizer.param_groups)
        self.optimizer.zero_grad(set_to_none=True)
        loss_sum = torch.zeros((), device=self.ranks.device)
        for index, (images, labels) in enumerate(batches):
            images = images.to(self.ranks.device, non_blocking=True)
            labels = labels.to(self.ranks.device, non_blocking=True)
            is_last = index == len(batches) - 1
            with contextlib.nullcontext() if is_last else self._no_sync():
                loss = self._loss(images, labels) / len(batches)
                loss.backward()
            loss_sum += loss.detach()
        clip = self.config.TRAIN.CLIP_GRAD or float("inf")
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), clip).item()
        # The norm is of the gradient of all ranks, so all of them see the same and stop together.
        if not norm < float("inf"):
            raise DivergedError(
                f"the training diverged: loss {loss_sum.item():.4g}, gradient norm {norm} in epoch "
                f"{epoch + 1}, step {self.step + 1}, at learning rate {learning_rate:.3g}; "
                "a lower TRAIN.BASE_LR or TRAIN.CLIP_GRAD may help"
            )
        self.optimizer.step()
        self.step += 1
        if self.ema is not None:
            self.ema.update(self.model)
        return StepResult(epoch, self.step, loss_sum.item(), norm, learning_rate)

    def _loss(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Mean loss of a batch: images (N, 3, H, W), labels (N,)."""
        if self.mixup is not None:
            images, targets = self.mixup(images, labels)  # targets (N, K), smoothed
            return F.cross_entropy(self.parallel_model(images), targets)
        smoothing = self.config.MODEL.LABEL_SMOOTHING
        return F.cross_entropy(self.parallel_model(images), labels, label_smoothing=smoothing)

    def _no_sync(self) -> contextlib.AbstractContextManager:
        if isinstance(self.parallel_model, DistributedDataParallel):
            return self.parallel_model.no_sync()
        return contextlib.nullcontext()

    def _average_batch_norm(self) -> None:
        """Gives all ranks the mean of their running statistics: one model, whoever saves it."""
        if self.ranks.world_size == 1:
            return
        for model in filter(None, (self.model, self.ema and self.ema.module)):
            distribute_bn(model, self.ranks.world_size, reduce=True)


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    loader: Iterable[tuple[torch.Tensor, torch.Tensor]],
    *,
    device: torch.device,
) -> Scores:
    """Evaluates a classifier on the images of all ranks, each counted once.

    Args:
        model: (N, 3, H, W) -> (N, K); is in evaluation mode afterwards.
        loader: Batches of this rank's share: images (N, 3, H, W) and labels (N,).
        device: Where the model is.

    Raises:
        ValueError: There is no image.
    """
    model.eval()
    # Sums of loss, top-1 hits, top-5 hits and images.
    sums = torch.zeros(4, dtype=torch.float64, device=device)
    for images, labels in loader:
        labels = labels.to(device, non_blocking=True)
        logits = model(images.to(device, non_blocking=True)).float()
        top5 = logits.topk(min(5, logits.shape[1]), dim=1).indices
        hits = top5 == labels[:, None]  # (N, 5)
        loss = F.cross_entropy(logits, labels, reduction="sum")
        sums[:3] += torch.stack([loss.double(), hits[:, 0].sum(), hits.sum()])
        sums[3] += len(labels)
    loss_sum, top1_hits, top5_hits, num_images = sum_over_ranks(sums).tolist()
    if not num_images:
        raise ValueError("evaluate: expected images >= 1, got 0")
    return Scores(
        loss=loss_sum / num_images,
        top1=100 * top1_hits / num_images,
        top5=100 * top5_hits / num_images,
        num_images=int(num_images),
    )
