"""All strategies make the same steps, keep one form of state, and share the memory as they should.

Two launches serve most of this file: see strategies_run.py. What needs none is in
test_strategies_alone.py.
"""

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name("strategies_run.py")

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
    return torch.load(folder / "2_ranks.pt", weights_only=True)


@pytest.fixture(scope="module")
def found_alone(folder: Path) -> dict[str, Any]:
    """What one process without torchrun found in the states of the two."""
    launch(SCRIPT, folder)
    return torch.load(folder / "1_rank.pt", weights_only=True)["without_launcher"]


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
def test_an_epoch_that_is_interrupted_ends_with_the_same_bits(found: dict[str, Any], kind: str):
    """Through the engine: weights, their average, optimiser, statistics, random states, sums."""
    result = found["interruptions"][kind]
    assert result["step_in_epoch"] == 2
    assert result["has_moved"]
    assert result["is_same"]
    assert result["is_same_average"]
    assert result["num_final"] > 50
    assert result["losses"][0] == result["losses"][1]


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
    assert not any(key.startswith("levels.0.") for key in result["changed"] + result["with_state"])


@pytest.mark.inductor
def test_compiled_strategies_compute_the_same(tmp_path: Path):
    launch(SCRIPT, tmp_path, "compiled")
    found = torch.load(tmp_path / "compiled.pt", weights_only=True)["compiled"]
    for kind in ("ddp", "fsdp", "zero1", "zero3"):
        plain, compiled = found[kind, False], found[kind, True]
        assert_near(compiled["losses"], plain["losses"], within=1e-4)
        assert torch.allclose(compiled["logits"], plain["logits"], atol=1e-3)
        assert compiled["keys"] == plain["keys"]
