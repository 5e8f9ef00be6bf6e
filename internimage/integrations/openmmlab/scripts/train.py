"""Training: a config, the command line, mmengine's Runner, and the hooks of these scripts."""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from torch import nn

from internimage.integrations.openmmlab.backbone import split_init_cfg
from internimage.integrations.openmmlab.scripts.arguments import parse_train
from internimage.integrations.openmmlab.scripts.checkpoints import CheckpointCheckHook, Purpose
from internimage.integrations.openmmlab.scripts.command_line import run_script
from internimage.integrations.openmmlab.scripts.config_file import check_task, read_config
from internimage.integrations.openmmlab.scripts.data_checks import TRAIN, check_data
from internimage.integrations.openmmlab.scripts.divergence import DivergenceHook
from internimage.integrations.openmmlab.scripts.evaluation import MissedEvaluationHook
from internimage.integrations.openmmlab.scripts.mixed_precision import HostAmpOptimWrapper
from internimage.integrations.openmmlab.scripts.ranks import (
    choose_gpu,
    name_launcher,
    start_ranks,
)
from internimage.integrations.openmmlab.scripts.records import RecordsHook
from internimage.integrations.openmmlab.scripts.runner import NamingRunner, prepare_process
from internimage.integrations.openmmlab.scripts.safe_loading import (
    find_file,
    read_checkpoint,
)
from internimage.integrations.openmmlab.scripts.saving import StopHook
from internimage.integrations.openmmlab.scripts.seeds import StepSeedHook
from internimage.integrations.openmmlab.scripts.test_settings import leave_out_scores
from internimage.integrations.openmmlab.scripts.work_dir import SetAsideHook, find_newest


def main(name: str, configs: Path, arguments: Sequence[str] | None = None) -> int:
    """Run the command line of a train.py; return the exit code.

    Args:
        name: The script's name.
        configs: The folder of its configs.
        arguments: The command line; None is the process's own.
    """
    kept: list[str] = []

    def script() -> None:
        args = parse_train(name, arguments)
        config = read_config(args.config, args.cfg_options, configs=configs)
        check_task(config, configs)
        config.launcher = name_launcher(args.launcher, args.local_rank, os.environ)
        apply_arguments(config, args)
        # All that can be wrong with files comes before the ranks wait for one another.
        check_data(config, TRAIN if config.val_dataloader else TRAIN[:1])
        if config.load_from is not None:
            find_file(config.load_from)
        start_ranks(config)
        if config.launcher == "none":
            choose_gpu(args.gpu_id)
        train(config, kept, from_work_dir=args.resume == "auto")

    def hint() -> str:
        newest = find_newest(Path(kept[0]))[0] if kept and Path(kept[0]).is_dir() else None
        return f"; {newest} is kept, --resume goes on from it" if newest else ""

    return run_script(name, script, hint=hint)


def apply_arguments(config: Config, args: argparse.Namespace) -> None:
    """Write what the flags say into the config.

    Raises:
        ValueError: The config lacks something to train with, or that a flag needs.
    """
    for name in ("model", "train_dataloader", "train_cfg", "optim_wrapper"):
        if config.get(name) is None:
            raise ValueError(f"expected {name} in {args.config} to train, got none")
    default = Path("work_dirs") / Path(args.config).stem
    config.work_dir = args.work_dir or config.get("work_dir") or str(default)
    if Path(config.work_dir).is_file():
        raise ValueError(f"expected a folder for --work-dir, got the file {config.work_dir}")
    for name in ("val_dataloader", "val_evaluator", "val_cfg"):
        if args.no_validate or config.get(name) is None:
            config[name] = None
    randomness = {"seed": None, **(config.get("randomness") or {})}
    if args.seed is not None:
        randomness["seed"] = args.seed
    if args.diff_seed:
        randomness["diff_rank_seed"] = True
    if args.deterministic:
        randomness["deterministic"] = True
    config.randomness = randomness
    if args.auto_scale_lr:
        if "base_batch_size" not in (config.get("auto_scale_lr") or {}):
            raise ValueError(
                f"expected auto_scale_lr.base_batch_size in {args.config} for --auto-scale-lr, "
                "got none"
            )
        config.auto_scale_lr.enable = True
    if args.amp:
        use_mixed_precision(config)
    if args.load_from is not None:
        config.load_from = args.load_from
    if args.resume is not None:
        config.resume = True
        # Where "auto" finds no checkpoint, the run starts from the config's weights.
        config.load_from = config.get("load_from") if args.resume == "auto" else args.resume
    config.setdefault("load_from", None)


def use_mixed_precision(config: Config) -> None:
    """Let the optimiser's wrapper compute in half precision: float16 on a GPU, bfloat16 on a CPU.

    Raises:
        ValueError: The config has a wrapper of another kind.
    """
    wrapper = config.optim_wrapper
    kind = wrapper.get("type", "OptimWrapper")
    if kind not in ("OptimWrapper", "AmpOptimWrapper", HostAmpOptimWrapper.__name__):
        raise ValueError(f"expected optim_wrapper.type OptimWrapper for --amp, got {kind}")
    # bfloat16 has float32's range and needs no scale; float16's gradients would vanish without.
    if torch.cuda.is_available():
        wrapper.type = "AmpOptimWrapper"
        wrapper.setdefault("loss_scale", "dynamic")
    else:
        wrapper.type = HostAmpOptimWrapper.__name__
        wrapper.pop("loss_scale", None)


def train(config: Config, kept: list[str], *, from_work_dir: bool) -> None:
    """Train as a config says.

    Args:
        config: Complete and checked.
        kept: Gets the work dir as soon as the run leaves something there.
        from_work_dir: Go on from the newest checkpoint of the work dir. Where there is none, the
            run starts as it would without.

    Raises:
        ValueError: A checkpoint does not fit, or the data sets are empty.
        DivergedError: The loss is no number any more.
        StoppedError: A signal asked to stop, and the state is saved.
    """
    prepare_process(config)
    _choose_start(config, from_work_dir or config.load_from is None)
    _prepare(config)
    kept.append(config.work_dir)
    # Before the runner is made, which writes its config over the earlier run's.
    aside = SetAsideHook(Path(config.work_dir, Path(config.filename).name))
    runner = NamingRunner.from_cfg(config)
    leave_out_scores(runner.model, config.val_evaluator)
    for hook in _hooks(config, aside):
        runner.register_hook(hook)
    if config.load_from is not None:
        _skip_first_weights(runner.model, config.load_from)
    runner.train()


def _choose_start(config: Config, from_work_dir: bool) -> None:
    """Find the checkpoint that a run goes on from, and its seed; the first rank does it for all.

    Raises:
        ValueError: The folder, or the checkpoint, cannot be read.
    """
    if not config.get("resume"):
        return
    # The first rank's view counts: on a disk of its own another one may see no checkpoint.
    answer: list[Any] = [None, [], None, ""]
    if is_main_process():
        try:
            answer[:3] = _find_start(config, from_work_dir)
        except (OSError, ValueError) as error:
            answer[3] = str(error)  # the other ranks wait for it
    broadcast_object_list(answer)
    start, damaged, seed, mistake = answer
    if mistake:
        raise ValueError(mistake)
    for path in damaged:
        print_log(f"{path} is damaged and left alone", "current")
    if start is None:
        warnings.warn(f"--resume: no checkpoint in {config.work_dir}, a new run", stacklevel=2)
        config.resume = False
        return
    config.load_from = start
    if seed is None:
        return
    # The runner takes it up as well, but only once the samplers are made with another one: the rest
    # of the epoch would have other images.
    given = config.randomness.seed
    if given is not None and given != seed:
        warnings.warn(f"the seed {given} has no effect: {start} goes on with {seed}", stacklevel=2)
    config.randomness.seed = seed


def _find_start(config: Config, from_work_dir: bool) -> tuple[str | None, list[Path], int | None]:
    """Return the checkpoint to go on from, damaged ones that are newer, and the run's seed."""
    start: str | None = config.load_from
    damaged: list[Path] = []
    if from_work_dir:
        work_dir = Path(config.work_dir)
        newest, damaged = find_newest(work_dir) if work_dir.is_dir() else (None, [])
        start = None if newest is None else str(newest)
    meta = (read_checkpoint(start).get("meta") or {}) if start else {}
    return start, damaged, meta.get("seed")


def _skip_first_weights(model: nn.Module, load_from: str) -> None:
    """Let a backbone leave out a checkpoint that the whole model's replaces: its file may be gone.

    The config keeps it, for a run that starts from it another time.
    """
    backbone = getattr(model.module if is_model_wrapper(model) else model, "backbone", None)
    pretrained, others = split_init_cfg(getattr(backbone, "init_cfg", None))
    if backbone is not None and pretrained:
        backbone.init_cfg = others
        origin = pretrained[0].get("checkpoint")
        print_log(f"model.backbone.init_cfg: {origin} is not read, {load_from} is", "current")


def _hooks(config: Config, aside: SetAsideHook) -> list[Hook]:
    records = RecordsHook()
    # mmengine sorts hooks by priority; those of one priority run in the order of registration.
    hooks: list[Hook] = [StepSeedHook(), DivergenceHook(), records]
    if config.load_from is not None:
        purpose: Purpose = "resume" if config.resume else "load_from"
        hooks.append(CheckpointCheckHook(purpose, config.load_from))
    # Signals are waited for before the evaluation begins.
    return [*hooks, aside, StopHook(), MissedEvaluationHook(records)]


def _prepare(config: Config) -> None:
    """Let checkpoints be written whole, and a run go on behind any batch."""
    checkpoint = config.setdefault("default_hooks", {}).setdefault("checkpoint", {})
    checkpoint.setdefault("type", "CheckpointHook")
    checkpoint.setdefault("backend_args", {"backend": "whole_file"})
    loader = config.train_dataloader
    loader.setdefault("worker_init_fn", {"type": "keep_worker_seed"})
    loader.batch_sampler = {
        "type": "GoOnBatchSampler",
        "batches": loader.get("batch_sampler"),
        "drop_last": loader.pop("drop_last", False),  # DataLoader refuses it beside a batch sampler
    }
