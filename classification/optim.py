"""Optimiser and learning-rate schedule of a run."""

from typing import Any

import torch
from timm.scheduler import CosineLRScheduler, PolyLRScheduler, StepLRScheduler
from timm.scheduler.scheduler import Scheduler
from yacs.config import CfgNode

from internimage import InternImage
from internimage.param_groups import param_groups

# The rates in the settings are for this many images a step.
REFERENCE_BATCH_SIZE = 512


def learning_rate_factor(config: CfgNode, world_size: int) -> float:
    """Returns (images a step) / 512, which scales the three learning rates of the settings."""
    images = config.DATA.BATCH_SIZE * config.TRAIN.ACCUMULATION_STEPS * world_size
    return images / REFERENCE_BATCH_SIZE


def optimizer_recipe(
    config: CfgNode, model: InternImage, *, factor: float
) -> tuple[type[torch.optim.Optimizer], list[dict[str, Any]], dict[str, Any]]:
    """Returns an optimiser's class, the model's parameter groups and the remaining arguments.

    Vectors and biases have no weight decay; LR_LAYER_DECAY and DCN_LR_MUL give groups a rate of
    their own, as a factor ``lr_scale`` of the schedule's.

    Args:
        config: The settings; TRAIN is read.
        model: The model, on its device.
        factor: See ``learning_rate_factor``.
    """
    train = config.TRAIN
    learning_rate = train.BASE_LR * factor
    dcn_lr_mul = train.OPTIMIZER.DCN_LR_MUL
    groups: list[dict[str, Any]] = [
        # All start from the schedule's rate: timm's schedulers multiply by lr_scale at each step.
        {**group, "lr": learning_rate}
        for group in param_groups(
            model.named_parameters(),
            depths=model.depths,
            lr=learning_rate,
            weight_decay=train.WEIGHT_DECAY,
            layer_decay=train.LR_LAYER_DECAY_RATIO if train.LR_LAYER_DECAY else 1.0,
            dcn_lr_mul=1.0 if dcn_lr_mul is None else dcn_lr_mul,
        )
    ]
    if train.OPTIMIZER.NAME == "sgd":
        options = {"momentum": train.OPTIMIZER.MOMENTUM, "nesterov": True}
        return torch.optim.SGD, groups, {"lr": learning_rate, **options}
    # fused: one pass over the weights instead of a dozen; for a small model a sixth of the step
    options = {"betas": train.OPTIMIZER.BETAS, "eps": train.OPTIMIZER.EPS, "fused": True}
    return torch.optim.AdamW, groups, {"lr": learning_rate, **options}


def build_optimizer(config: CfgNode, model: InternImage, *, factor: float) -> torch.optim.Optimizer:
    """Builds the optimiser over the model's parameter groups; see ``optimizer_recipe``."""
    kind, groups, options = optimizer_recipe(config, model, factor=factor)
    return kind(groups, **options)


def build_scheduler(
    config: CfgNode, optimizer: torch.optim.Optimizer, *, steps_per_epoch: int, factor: float
) -> Scheduler:
    """Builds the schedule of the learning rate, set by ``step_update(step)`` before each step.

    Linear warm-up from WARMUP_LR to BASE_LR, then by LR_SCHEDULER.NAME: ``cosine`` to MIN_LR,
    ``linear`` to 1 % of BASE_LR, ``step`` times DECAY_RATE every DECAY_EPOCHS.

    Args:
        config: The settings; TRAIN is read.
        optimizer: The optimiser whose rates are BASE_LR * factor.
        steps_per_epoch: Optimiser steps of an epoch.
        factor: See ``learning_rate_factor``.
    """
    train = config.TRAIN
    num_steps = train.EPOCHS * steps_per_epoch
    common = {
        "warmup_t": train.WARMUP_EPOCHS * steps_per_epoch,
        "warmup_lr_init": train.WARMUP_LR * factor,
        "t_in_epochs": False,
    }
    if train.LR_SCHEDULER.NAME == "cosine":
        # Of one step alone timm would write to the console that there is nothing to schedule.
        num_steps = max(num_steps, 2)
        return CosineLRScheduler(optimizer, num_steps, lr_min=train.MIN_LR * factor, **common)
    if train.LR_SCHEDULER.NAME == "linear":
        floor = 0.01 * train.BASE_LR * factor
        # From the end of the warm-up on, as in the original; timm's default is from the start.
        falling = max(num_steps - common["warmup_t"], 1)
        return PolyLRScheduler(
            optimizer, falling, power=1.0, lr_min=floor, warmup_prefix=True, **common
        )
    decay_steps = train.LR_SCHEDULER.DECAY_EPOCHS * steps_per_epoch
    return StepLRScheduler(
        optimizer, decay_steps, decay_rate=train.LR_SCHEDULER.DECAY_RATE, **common
    )
