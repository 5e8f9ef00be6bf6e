"""Evaluation of a checkpoint: a config, the command line, mmengine's Runner."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

from mmcv.cnn import fuse_conv_bn
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from internimage.integrations.openmmlab.scripts.arguments import parse_test
from internimage.integrations.openmmlab.scripts.checkpoints import CheckpointCheckHook
from internimage.integrations.openmmlab.scripts.command_line import run_script
from internimage.integrations.openmmlab.scripts.config_file import check_task, read_config
from internimage.integrations.openmmlab.scripts.data_checks import TEST, check_data
from internimage.integrations.openmmlab.scripts.ranks import (
    choose_gpu,
    name_launcher,
    start_ranks,
)
from internimage.integrations.openmmlab.scripts.records import ScoresHook
from internimage.integrations.openmmlab.scripts.runner import NamingRunner, prepare_process
from internimage.integrations.openmmlab.scripts.safe_loading import (
    find_file,
)
from internimage.integrations.openmmlab.scripts.test_settings import (
    apply_arguments,
    leave_out_scores,
)


class FuseHook(Hook):
    """Merges batch norms into the convolutions before them, once the weights are there."""

    # Not before_run: the runner loads the checkpoint between the two.
    def before_test(self, runner: Runner) -> None:
        """Change the model in place."""
        before = _num_batch_norms(runner.model)
        fuse_conv_bn(runner.model)
        fused = before - _num_batch_norms(runner.model)
        if fused:
            runner.logger.info(f"{fused} batch norms are merged into convolutions")
        else:
            warnings.warn(
                "--fuse-conv-bn has no effect: no batch norm follows a convolution", stacklevel=2
            )


def main(name: str, configs: Path, arguments: Sequence[str] | None = None) -> int:
    """Run the command line of a test.py; return the exit code.

    Args:
        name: The script's name.
        configs: The folder of its configs.
        arguments: The command line; None is the process's own.
    """

    def script() -> None:
        args = parse_test(name, arguments)
        config = read_config(args.config, args.cfg_options, configs=configs)
        check_task(config, configs)
        config.launcher = name_launcher(args.launcher, args.local_rank, os.environ)
        apply_arguments(config, args)
        find_file(args.checkpoint)
        check_data(config, TEST)
        start_ranks(config)
        if config.launcher == "none":
            choose_gpu(args.gpu_id)
        test(config, fuse=args.fuse_conv_bn)

    return run_script(name, script)


def test(config: Config, *, fuse: bool) -> None:
    """Evaluate as a config says.

    Args:
        config: Complete and checked; ``load_from`` is the checkpoint.
        fuse: Merge batch norms into convolutions.

    Raises:
        ValueError: The checkpoint is not of this model, or the data set is empty.
    """
    prepare_process(config)
    # Weights are all in the checkpoint: nothing is downloaded to start from.
    runner = NamingRunner.from_cfg(config)
    leave_out_scores(runner.model, config.test_evaluator)
    hooks = [CheckpointCheckHook("test", config.load_from), ScoresHook(config.load_from)]
    hooks += [FuseHook()] if fuse else []
    for hook in hooks:
        runner.register_hook(hook)
    runner.test()


def _num_batch_norms(model: nn.Module) -> int:
    return sum(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
