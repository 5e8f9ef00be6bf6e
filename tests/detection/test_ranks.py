"""Ranks: who names them, how many work on a CPU, and what a layer makes of it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from internimage.integrations.openmmlab.scripts.ranks import (
    choose_gpu,
    name_launcher,
    replace_sync_batch_norm,
)
from tests.detection.script_runs import run_script

TORCHRUN = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}
SRUN = {
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "3",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
    "SLURM_JOB_ID": "5",
}
MPIRUN = {
    "OMPI_COMM_WORLD_RANK": "2",
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_LOCAL_RANK": "0",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "4",
}


@pytest.mark.parametrize(
    ("launcher", "environment", "expected"),
    [
        (None, {}, ("none", None, None)),
        ("none", {}, ("none", None, None)),
        (None, TORCHRUN, ("pytorch", "1", "2")),
        ("pytorch", TORCHRUN, ("pytorch", "1", "2")),
        ("slurm", SRUN, ("pytorch", "3", "4")),
        ("mpi", MPIRUN, ("pytorch", "2", "4")),
    ],
)
def test_the_launcher_is_who_shows_in_the_environment(launcher, environment, expected):
    environment = dict(environment)
    kind = name_launcher(launcher, None, environment)
    assert (kind, environment.get("RANK"), environment.get("WORLD_SIZE")) == expected


def test_a_local_rank_that_is_typed_stands_in_for_the_environments():
    given, typed = dict(TORCHRUN), {"RANK": "1", "WORLD_SIZE": "2"}
    name_launcher(None, 7, given)
    name_launcher(None, 7, typed)
    assert (given["LOCAL_RANK"], typed["LOCAL_RANK"]) == ("1", "7")


@pytest.mark.parametrize(
    ("launcher", "environment", "message"),
    [
        ("pytorch", {}, "torchrun's variables"),
        ("slurm", {}, "srun's variables"),
        ("mpi", {}, "OMPI_COMM_WORLD_RANK"),
        ("mpi", MPIRUN | {"OMPI_COMM_WORLD_LOCAL_SIZE": "2"}, "MASTER_ADDR"),
        ("none", TORCHRUN, "all would do the same work"),
    ],
)
def test_a_launcher_that_is_not_there_or_denied_is_refused(launcher, environment, message):
    with pytest.raises(ValueError, match=message):
        name_launcher(launcher, None, dict(environment))


def test_a_gpu_that_is_not_there_is_refused():
    count = torch.cuda.device_count()
    with pytest.raises(ValueError, match=rf"number of GPUs = {count}, got {count}"):
        choose_gpu(count)


def test_synchronised_norms_are_plain_ones_in_one_process():
    norms = [{"norm_cfg": {"type": "SyncBN", "requires_grad": True}} for _ in range(3)]
    config = Config({"model": {"backbone": {"norm": {"type": "LN"}}, "heads": norms}})
    assert replace_sync_batch_norm(config) == 3
    assert config.model.heads[2].norm_cfg == {"type": "BN", "requires_grad": True}
    assert config.model.backbone.norm.type == "LN"


@pytest.mark.slow
def test_two_ranks_train_and_evaluate_as_one_model(tiny_folder: Path):
    trained = run_script(
        "dist_train.sh",
        *("tiny.py", "2", "--work-dir", "ranks", "--seed", "1"),
        *("--cfg-options", "train_cfg.max_epochs=1"),
        folder=tiny_folder,
    )
    assert trained.code == 0, trained.errors
    # Eight images, one a rank and step.
    assert re.findall(r"Epoch\(train\)\s+\[1\]\[(\d)/(\d)\]", trained.printed) == [
        (str(step), "4") for step in range(1, 5)
    ]
    tested = run_script(
        "dist_test.sh",
        *("tiny.py", "ranks/epoch_1.pth", "2", "--work-dir", "ranks_tested"),
        folder=tiny_folder,
    )
    assert tested.code == 0, tested.errors
    before = json.loads((tiny_folder / "ranks" / "metrics.json").read_text())
    after = json.loads((tiny_folder / "ranks_tested" / "metrics.json").read_text())
    for name in ("bbox_mAP", "segm_mAP"):
        assert after[name] == pytest.approx(before[name], abs=2e-3)  # rounded to 3 places


@pytest.mark.slow
def test_ranks_end_with_the_line_of_the_mistake(tiny_folder: Path):
    done = run_script(
        "dist_train.sh",
        *("tiny.py", "2", "--work-dir", "nothing", "--cfg-options", "data_root=/no"),
        folder=tiny_folder,
    )
    assert done.code == 1  # torchrun's own
    lines = [line for line in done.errors.splitlines() if line.startswith("train.py: error:")]
    assert lines == [lines[0]]
    assert "/no/annotations/train.json" in lines[0]
    assert not (tiny_folder / "nothing").exists()
