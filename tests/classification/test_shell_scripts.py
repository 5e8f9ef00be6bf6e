"""The shell scripts start what they say; Slurm's variables name the ranks."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from torch.distributed.launcher.api import LaunchConfig

from internimage.slurm import first_host, name_ranks
from tests.shell_runs import after, run_shell

FOLDER = Path(__file__).resolve().parents[2] / "classification"
CONFIG = "configs/digits/internimage_n_digits_32.yaml"


def run(script: str, *arguments: str, fakes: Path, **variables: str) -> tuple[int, list[list[str]]]:
    """Runs a script of the folder; see ``run_shell``."""
    return run_shell(FOLDER / script, *arguments, fakes=fakes, **variables)


def test_dist_train_starts_the_ranks_of_one_machine(fakes: Path):
    code, (call,) = run("dist_train.sh", "a b.yaml", "4", "--tag", "x y", fakes=fakes)
    assert code == 0
    assert call[:2] == ["torchrun", "--standalone"]
    assert after(call, "--nproc_per_node") == "4"
    assert "SIGUSR1" in after(call, "--signals-to-handle").split(",")
    assert Path(call[-5]).samefile(FOLDER / "train.py")
    assert call[-4:] == ["--cfg", "a b.yaml", "--tag", "x y"]


def test_dist_train_joins_the_other_machines(fakes: Path):
    where = {"NNODES": "3", "NODE_RANK": "2", "MASTER_ADDR": "first", "MASTER_PORT": "123"}
    _, (call,) = run("dist_train.sh", "a.yaml", "8", fakes=fakes, **where)
    flags = ("--nnodes", "--node_rank", "--master_addr", "--master_port", "--nproc_per_node")
    assert [after(call, flag) for flag in flags] == ["3", "2", "first", "123", "8"]
    assert "--standalone" not in call


@pytest.mark.parametrize(
    ("variables", "seconds"), [({}, 600), ({"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "77"}, 77)]
)
def test_ranks_have_time_to_save_when_torchrun_stops_them(
    fakes: Path, monkeypatch, variables: dict[str, str], seconds: int
):
    run("dist_train.sh", "a.yaml", "8", fakes=fakes, **variables)
    told = (fakes.parent / "seconds_to_stop").read_text().strip()
    monkeypatch.setenv("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", told)
    assert LaunchConfig(1, 1, 1).shutdown_timeout == seconds  # as torchrun reads it


@pytest.mark.parametrize(
    ("script", "arguments", "variables"),
    [
        ("dist_train.sh", ["a.yaml"], {}),
        ("dist_train.sh", ["a.yaml", "8"], {"NNODES": "2"}),
        ("slurm_train.sh", ["partition", "job"], {}),
    ],
)
def test_a_call_that_lacks_something_starts_nothing(fakes: Path, script, arguments, variables):
    assert run(script, *arguments, fakes=fakes, **variables) == (2, [])


@pytest.mark.parametrize("script", ["slurm_train.sh", "train_in1k.sh", "train_inat18.sh"])
def test_slurm_train_asks_for_gpus_and_a_signal(fakes: Path, script: str):
    variables = {"GPUS": "16", "CPUS_PER_TASK": "5", "SRUN_ARGS": "--time 1:00:00 --exclude x"}
    arguments = ["part", "job", "a b.yaml", "--tag", "x y"]
    code, (call,) = run(script, *arguments, fakes=fakes, **variables)
    assert code == 0
    flags = ("--partition", "--job-name", "--ntasks", "--ntasks-per-node", "--gres")
    assert [after(call, flag) for flag in flags] == ["part", "job", "16", "8", "gpu:8"]
    assert (after(call, "--cpus-per-task"), after(call, "--time")) == ("5", "1:00:00")
    assert {"--kill-on-bad-exit=1", "--signal=USR1@120"} <= set(call)
    assert call[-4:] == ["--cfg", "a b.yaml", "--tag", "x y"]


def test_slurm_train_takes_no_more_than_it_has_ranks(fakes: Path):
    _, (call,) = run("slurm_train.sh", "part", "job", "a.yaml", fakes=fakes, GPUS="2")
    assert (after(call, "--ntasks-per-node"), after(call, "--gres")) == ("2", "gpu:2")


def test_the_deepspeed_script_names_the_strategy(fakes: Path):
    _, (call,) = run(
        "train_in1k_deepspeed.sh", "p", "j", "a.yaml", "--zero-stage", "3", fakes=fakes
    )
    assert after(call, "--strategy") == "deepspeed"
    assert after(call, "--zero-stage") == "3"


def test_a_run_that_slurm_stops_is_started_again(fakes: Path, tmp_path: Path):
    (tmp_path / "srun_codes").write_text("138\n138\n")
    code, calls = run("slurm_train.sh", "part", "job", "a.yaml", fakes=fakes)
    assert code == 0
    assert [call[0] for call in calls] == ["srun"] * 3
    assert calls[0] == calls[1] == calls[2]


def test_a_batch_job_that_slurm_stops_is_requeued(fakes: Path, tmp_path: Path):
    (tmp_path / "srun_codes").write_text("138\n")
    code, calls = run("slurm_train.sh", "part", "job", "a.yaml", fakes=fakes, SLURM_JOB_ID="77")
    assert code == 0
    assert [call[0] for call in calls] == ["srun", "scontrol"]
    assert not any("--signal" in word for word in calls[0])  # the batch script asks for it
    assert calls[1] == ["scontrol", "requeue", "77"]


@pytest.mark.parametrize("exit_code", [1, 2, 143])
def test_any_other_end_is_handed_on(fakes: Path, tmp_path: Path, exit_code: int):
    (tmp_path / "srun_codes").write_text(f"{exit_code}\n")
    code, calls = run("slurm_train.sh", "part", "job", "a.yaml", fakes=fakes, SLURM_JOB_ID="77")
    assert (code, len(calls)) == (exit_code, 1)


@pytest.mark.slow
def test_dist_train_saves_at_sigusr1_and_goes_on(tmp_path: Path):
    """With the real torchrun on two ranks, which gets the signal."""
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
    }
    options = ["TRAIN.EPOCHS", "3", "MODEL.ARCH", "internimage_test_t", "LOGGER", "none"]
    options += ["SAVE_FREQ", "100", "EVAL_FREQ", "100", "PRINT_FREQ", "1"]
    command = [FOLDER / "dist_train.sh", FOLDER / CONFIG, "2", "--output", tmp_path]
    folder = tmp_path / "internimage_n_digits_32"
    log = folder / "log_rank1.txt"
    with subprocess.Popen(
        [*command, "--opts", *options],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        deadline = time.monotonic() + 100
        while not (log.exists() and "loss" in log.read_text()):  # has made a step
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.02)
        assert not list(folder.glob("ckpt_*"))
        process.send_signal(signal.SIGUSR1)
        _, said = process.communicate(timeout=100)
    assert process.returncode != 0
    assert "stopped by SIGUSR1" in said
    assert len(list(folder.glob("ckpt_epoch_*.pth"))) == 1
    done = subprocess.run(
        [*command, "--opts", *options], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "goes on after step" in done.stdout
    assert json.loads((folder / "summary.json").read_text())["world_size"] == 2


SRUN = """#!/usr/bin/env bash
# Starts two tasks here, as srun would on a machine called localhost.
while [ "$1" != python ]; do shift; done
shift
export SLURM_JOB_ID=$$ SLURM_STEP_ID=0 SLURM_NTASKS=2 SLURM_JOB_NODELIST=localhost
for task in 0 1; do
    SLURM_PROCID=$task SLURM_LOCALID=$task {python} "$@" &
    tasks+=($!)
done
code=0
for task in "${{tasks[@]}}"; do wait "$task" || code=$?; done
exit $code
"""


@pytest.mark.slow
def test_slurm_train_trains_on_two_tasks(tmp_path: Path):
    """With an srun that starts them; no torchrun is there."""
    srun = tmp_path / "srun"
    srun.write_text(SRUN.format(python=sys.executable))
    srun.chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "HOME": str(tmp_path),
    }
    arguments = ["part", "job", FOLDER / CONFIG, "--output", tmp_path / "out", "--opts"]
    arguments += ["TRAIN.EPOCHS", "1", "MODEL.ARCH", "internimage_test_t", "LOGGER", "none"]
    done = subprocess.run(
        [FOLDER / "slurm_train.sh", *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    summary = tmp_path / "out" / "internimage_n_digits_32" / "summary.json"
    assert '"world_size": 2' in summary.read_text()


# ------------------------------------------------------------------------------------------------
# the ranks of srun

TASK = {
    "SLURM_STEP_ID": "2",
    "SLURM_PROCID": "9",
    "SLURM_NTASKS": "16",
    "SLURM_LOCALID": "1",
    "SLURM_JOB_ID": "32001",
    "SLURM_JOB_NODELIST": "gpu[07-09,12]",
}


def test_a_task_of_srun_is_a_rank():
    environment = dict(TASK)
    name_ranks(environment)
    assert {key: environment[key] for key in environment if key not in TASK} == {
        "RANK": "9",
        "WORLD_SIZE": "16",
        "LOCAL_RANK": "1",
        "MASTER_ADDR": "gpu07",
        "MASTER_PORT": "28003",
    }


def test_the_step_counts_and_not_the_job_around_it():
    environment = TASK | {"SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NODELIST": "gpu09"}
    name_ranks(environment)
    assert (environment["WORLD_SIZE"], environment["MASTER_ADDR"]) == ("4", "gpu09")


def test_a_meeting_point_of_ones_own_stays():
    environment = TASK | {"MASTER_ADDR": "here", "MASTER_PORT": "5"}
    name_ranks(environment)
    assert (environment["MASTER_ADDR"], environment["MASTER_PORT"]) == ("here", "5")


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"SLURM_JOB_ID": "1", "SLURM_PROCID": "0", "SLURM_NTASKS": "8"},  # a batch script's shell
        TASK | {"RANK": "0", "WORLD_SIZE": "1"},  # torchrun in a task of srun
    ],
)
def test_what_is_no_task_of_srun_stays_as_it_is(environment: dict[str, str]):
    before = dict(environment)
    name_ranks(environment)
    assert environment == before


def test_a_task_without_its_number_is_an_error():
    environment = {name: value for name, value in TASK.items() if name != "SLURM_PROCID"}
    with pytest.raises(ValueError, match="expected srun's variable SLURM_PROCID, got none"):
        name_ranks(environment)


@pytest.mark.parametrize(
    ("nodes", "host"),
    [
        ("gpu[003-006,009],x1", "gpu003"),
        ("a,b[1-2]", "a"),
        ("r[1-2]n[03,5],z", "r1n03"),
        ("node-1.cluster", "node-1.cluster"),
        ("n[12]", "n12"),
    ],
)
def test_the_first_machine_is_found_in_the_short_form(nodes: str, host: str):
    assert first_host(nodes) == host
