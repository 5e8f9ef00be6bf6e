"""Strategies on one process: states and settings that are refused, optional libraries."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from classification.config import get_default_config
from classification.distributed import Ranks
from classification.strategies import Strategy, build_strategy
from internimage import InternImage

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
ALONE = Ranks(rank=0, world_size=1, device=CPU)


def small_strategy(*options: object) -> Strategy:
    config = get_default_config()
    config.merge_from_list(["AMP_OPT_LEVEL", "O0", *options])
    model = InternImage(channels=16, depths=(1, 1), groups=(1, 2), num_classes=3)
    return build_strategy(config, model, ALONE, factor=1.0)


def one_step(strategy: Strategy) -> None:
    loss = strategy.forward(torch.randn(4, 3, 32, 32)).square().mean()
    strategy.backward(loss, is_last=True)
    strategy.step(clip_grad=0.0)


@pytest.mark.parametrize("key", ["TRAIN.SYNC_BN", "TRAIN.OPTIMIZER.USE_ZERO"])
def test_what_is_about_other_ranks_warns_on_one(key: str):
    with pytest.warns(UserWarning, match=f"{key} = True has no effect on one rank") as caught:
        small_strategy(key, True)
    assert len(caught) == 1


def drop_head(state: dict[str, Any]) -> None:
    del state["head.weight"]


def add_layer(state: dict[str, Any]) -> None:
    state["layer.weight"] = torch.zeros(1)


def widen_head(state: dict[str, Any]) -> None:
    state["head.weight"] = torch.zeros(5, 48)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop_head, r"load_model_state: expected the state of this model.*head.weight"),
        (add_layer, r"load_model_state: expected the state of this model.*layer.weight"),
        (widen_head, r"load_model_state: expected head.weight of shape \(3, 48\), got \(5, 48\)"),
    ],
)
def test_weights_of_another_model_are_refused(
    change: Callable[[dict[str, Any]], None], message: str
):
    strategy = small_strategy()
    state = strategy.model_state()
    change(state)
    with pytest.raises(ValueError, match=message):
        strategy.load_model_state(state)


def drop_bias(state: dict[str, Any]) -> None:
    del state["optimizer"]["head.bias"]


def take_momentum(state: dict[str, Any]) -> None:
    state["optimizer"]["head.bias"] = {"momentum_buffer": torch.zeros(3)}


def widen_moment(state: dict[str, Any]) -> None:
    state["optimizer"]["head.bias"]["exp_avg"] = torch.zeros(5)


def add_scale(state: dict[str, Any]) -> None:
    state["scaler"] = {"scale": 1.0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop_bias, r"load_optimizer_state: expected the state of this model.*head.bias"),
        (take_momentum, r"expected for head.bias \['exp_avg', .*\] of AdamW, got \['momentum_b"),
        (widen_moment, r"expected exp_avg of head.bias of shape \(3,\), got \(5,\)"),
        (add_scale, r"expected a loss scale as AMP_TYPE and .* say = False, got True"),
    ],
)
def test_states_of_another_optimiser_are_refused(
    change: Callable[[dict[str, Any]], None], message: str
):
    strategy = small_strategy()
    one_step(strategy)
    state = strategy.optimizer_state()
    change(state)
    with pytest.raises(ValueError, match=message):
        strategy.load_optimizer_state(state)


def test_before_the_first_step_there_is_no_state_and_it_can_be_taken_up():
    strategy = small_strategy()
    fresh = strategy.optimizer_state()
    assert fresh == {"optimizer": {}, "scaler": {}}
    one_step(strategy)
    strategy.load_optimizer_state(fresh)
    assert strategy.optimizer_state() == fresh


@pytest.mark.filterwarnings("ignore:TRAIN.SYNC_BN")
def test_batch_norm_over_all_ranks_needs_cuda_and_more_than_one_rank():
    strategy = small_strategy("TRAIN.SYNC_BN", True)
    assert not any(isinstance(m, nn.SyncBatchNorm) for m in strategy.model.modules())
    config = get_default_config()
    config.TRAIN.SYNC_BN = True
    two = Ranks(rank=0, world_size=2, device=CPU)
    with pytest.raises(ValueError, match=r"expected CUDA devices beside TRAIN.SYNC_BN = True"):
        build_strategy(config, strategy.model, two, factor=1.0)


def test_without_deepspeed_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    with pytest.raises(ImportError, match=r"DS_BUILD_OPS=0 pip install .*internimage\[deepspeed"):
        small_strategy("TRAIN.STRATEGY", "deepspeed")


@pytest.mark.slow
def test_optional_libraries_are_imported_when_they_are_needed():
    code = "import sys, classification.strategies; print(*sys.modules, sep='\\n')"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert "torch" in loaded
    assert not {"deepspeed", "accelerate", "wandb"} & set(loaded)
