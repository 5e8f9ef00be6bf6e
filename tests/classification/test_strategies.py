"""All strategies make the same steps, keep one form of state, and share the memory as they should.

Two launches serve most of this file: see strategies_run.py.
"""

import math
import os
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

SCRIPT = Path(__file__).with_name("strategies_run.py")
CPU = torch.device("cpu")
ALONE = Ranks(rank=0, world_size=1, device=CPU)

KINDS = ("ddp", "ddp_zero", "fsdp", "zero1", "zero2", "zero3")
every_kind = pytest.mark.parametrize("kind", KINDS)

# Bytes a rank of two has, in bytes of the model: DDP has the weights, and two states of AdamW. ZeRO
# steps on a copy of its share of the weights, which counts as the optimiser's.
SHARES = {
    "ddp": (1.0, 2.0),
    "ddp_zero": (1.0, 1.0),
    "fsdp": (0.5, 1.0),
    "zero1": (1.0, 1.5),
    "zero2": (1.0, 1.5),
    "zero3": (0.5, 1.5),
}


def launch(*command: str | Path) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        environment.pop(name, None)
    result = subprocess.run(
        [sys.executable, *map(str, command)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-6000:]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with what two ranks found."""
    folder = tmp_path_factory.mktemp("strategies")
    launch("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", SCRIPT, folder)
    return folder


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "2_ranks.pt")


@pytest.fixture(scope="module")
def found_alone(folder: Path) -> dict[str, Any]:
    """What one process without torchrun found in the states of the two."""
    launch(SCRIPT, folder)
    return torch.load(folder / "1_rank.pt")["without_launcher"]


def assert_near(got: list[float], expected: list[float], within: float) -> None:
    assert torch.allclose(torch.tensor(got), torch.tensor(expected), rtol=0, atol=within)


@every_kind
def test_20_losses_and_gradient_norms_are_those_of_ddp(found: dict[str, Any], kind: str):
    ddp, own = found["losses_and_bytes"]["ddp"], found["losses_and_bytes"][kind]
    assert len(ddp["losses"]) == 20
    assert ddp["losses"][-1] < 0.5 * ddp["losses"][0]
    assert min(ddp["norms"]) > 1.0  # so that all are clipped
    assert_near(own["losses"], ddp["losses"], within=1e-4)
    assert_near(own["norms"], ddp["norms"], within=1e-3)


@every_kind
def test_a_rank_of_two_holds_the_share_of_bytes_that_the_strategy_promises(
    found: dict[str, Any], kind: str
):
    model = found["losses_and_bytes"]["ddp"]["bytes"]["parameters"]
    held = found["losses_and_bytes"][kind]["bytes"]
    parameters, optimizer = SHARES[kind]
    # Uneven tensors, padding, counts of steps.
    assert held["parameters"] == pytest.approx(parameters * model, rel=0.01)
    assert held["optimizer"] == pytest.approx(optimizer * model, rel=0.01)


@every_kind
def test_a_state_is_taken_up_bit_by_bit_and_training_goes_on_as_without_a_break(
    found: dict[str, Any], kind: str
):
    result = found["states"][kind]
    assert result["is_kept"]
    assert result["is_the_same_after_3_steps"]


@every_kind
def test_the_next_strategy_takes_up_the_state_and_makes_the_same_steps(
    found: dict[str, Any], kind: str
):
    result = found["states"][kind]
    assert result["is_taken_over"]
    assert_near(result["losses_of_other"], result["losses"], within=1e-4)


@every_kind
def test_one_process_without_launcher_takes_up_what_two_ranks_saved(
    found_alone: dict[str, Any], kind: str
):
    assert found_alone[kind]["is_kept"]
    assert_near(found_alone[kind]["losses"], found_alone["ddp"]["losses"], within=1e-4)


@every_kind
@pytest.mark.parametrize("case", ["checkpointed", "channels_last", "offloaded"])
def test_what_saves_memory_or_time_leaves_the_losses(found: dict[str, Any], kind: str, case: str):
    variants = found["variants"]
    assert_near(variants[kind, case]["losses"], variants["ddp", "plain"]["losses"], within=1e-4)


@every_kind
@pytest.mark.parametrize("case", ["bfloat16", "float16", "sgd"])
def test_16_bits_and_sgd_give_the_losses_of_ddp(found: dict[str, Any], kind: str, case: str):
    losses, plain = (found["variants"]["ddp", name]["losses"] for name in (case, "plain"))
    assert losses != plain
    assert_near(losses, plain, within=1.0 if case == "sgd" else 0.05)
    assert_near(found["variants"][kind, case]["losses"], losses, within=5e-3)


@every_kind
def test_no_warning_is_given(found: dict[str, Any], kind: str):
    assert {
        message
        for (name, _), variant in found["variants"].items()
        for message in variant["warnings"]
        if name == kind
    } == set()


@every_kind
def test_two_half_batches_make_the_step_of_a_whole_one(found: dict[str, Any], kind: str):
    whole, halves = (found["accumulation"][kind, parts] for parts in (1, 2))
    assert_near(halves["losses"], whole["losses"], within=1e-5)
    assert_near(halves["norms"], whole["norms"], within=1e-5)


@every_kind
@pytest.mark.parametrize("scales", [True, False])
def test_a_gradient_that_overflows_makes_no_step(found: dict[str, Any], kind: str, scales: bool):
    result = found["overflows"][kind, scales]
    assert result["is_as_before"]
    assert not math.isfinite(result["norm"])
    assert result["skipped"] == [scales, False]  # without a scale nobody can do better
    assert result["scales"] == ([2.0**16, 2.0**15] if scales else [None, None])
    assert 0 < result["next_norm"] < math.inf


@every_kind
def test_weights_exchanged_in_place_are_those_of_forward_and_state(
    found: dict[str, Any], kind: str
):
    result = found["exchanges"][kind]
    assert result["num_floats"] > 50
    assert result["is_changed"]
    assert result["is_halved"]
    assert result["is_back"]


@every_kind
def test_frozen_stages_stay_and_have_no_state(found: dict[str, Any], kind: str):
    result = found["frozen_stages"][kind]
    assert any(key.startswith("levels.1.") for key in result["changed"])
    assert any(name.startswith("levels.1.") for name in result["with_state"])
    assert not any(key.startswith("levels.0.") for key in result["changed"] | result["with_state"])


@pytest.mark.slow
@pytest.mark.inductor
def test_compiled_strategies_compute_the_same(tmp_path: Path):
    launch(SCRIPT, tmp_path, "compiled")
    found = torch.load(tmp_path / "compiled.pt")["compiled"]
    for kind in ("ddp", "fsdp", "zero1", "zero3"):
        plain, compiled = found[kind, False], found[kind, True]
        assert_near(compiled["losses"], plain["losses"], within=1e-4)
        assert torch.allclose(compiled["logits"], plain["logits"], atol=1e-3)
        assert compiled["keys"] == plain["keys"]


def small_strategy(*options: object) -> Strategy:
    config = get_default_config()
    config.merge_from_list(["AMP_OPT_LEVEL", "O0", *options])
    model = InternImage(channels=16, depths=(1, 1), groups=(1, 2), num_classes=3)
    return build_strategy(config, model, ALONE, factor=1.0)


def one_step(strategy: Strategy) -> None:
    loss = strategy.forward(torch.randn(4, 3, 32, 32)).square().mean()
    strategy.backward(loss, is_last=True)
    strategy.step(clip_grad=0.0)


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
