"""How ranks share a model: ``build_strategy`` makes what TRAIN.STRATEGY names."""

import warnings

from torch import nn
from yacs.config import CfgNode

from classification.distributed import Ranks
from classification.strategies.base import StepOutcome, Strategy
from classification.strategies.ddp import build_data_parallel
from classification.strategies.deepspeed import build_zero
from classification.strategies.fsdp import build_fully_sharded
from internimage import InternImage
from internimage.param_groups import freeze_stages

__all__ = ["StepOutcome", "Strategy", "build_strategy"]


def build_strategy(config: CfgNode, model: InternImage, ranks: Ranks, *, factor: float) -> Strategy:
    """Moves a model to its device and spreads it over the ranks; *collective*.

    Args:
        config: The settings; TRAIN and AMP are read.
        model: A classifier, with the same weights on every rank.
        ranks: This process among all.
        factor: See ``learning_rate_factor``.

    Raises:
        ValueError: The settings contradict each other or the device.
        ImportError: DeepSpeed is not installed.
    """
    _warn_about_one_rank(config, ranks)
    freeze_stages(model, config.TRAIN.OPTIMIZER.FREEZE_BACKBONE or ())
    if config.TRAIN.SYNC_BN and ranks.world_size > 1:
        if ranks.device.type == "cpu":
            raise ValueError(
                "build_strategy: expected CUDA devices beside TRAIN.SYNC_BN = True, which PyTorch "
                "has for no other kind, got cpu"
            )
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    model = model.to(ranks.device)
    builders = {
        "ddp": build_data_parallel,
        "fsdp": build_fully_sharded,
        "deepspeed": build_zero,
    }
    return builders[config.TRAIN.STRATEGY](config, model, ranks, factor=factor)


def _warn_about_one_rank(config: CfgNode, ranks: Ranks) -> None:
    """Warns of settings that are about other ranks where there are none."""
    chosen = {
        "TRAIN.SYNC_BN": config.TRAIN.SYNC_BN,
        "TRAIN.OPTIMIZER.USE_ZERO": config.TRAIN.OPTIMIZER.USE_ZERO,
    }
    for key, value in chosen.items():
        if value and ranks.world_size == 1:
            warnings.warn(f"{key} = True has no effect on one rank", stacklevel=3)
