"""The shell scripts of detection, segmentation and driving start what they say."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.shell_runs import after, run_shell

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True, params=["detection", "segmentation", "autonomous_driving"])
def task(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The folder whose scripts are run, which is the working directory."""
    monkeypatch.chdir(ROOT / request.param)
    return request.param


def run(script: str, *arguments: str, fakes: Path, **variables: str) -> tuple[int, list[list[str]]]:
    """Runs a script of the folder; see ``run_shell``."""
    return run_shell(Path.cwd() / script, *arguments, fakes=fakes, **variables)


@pytest.mark.parametrize(
    ("script", "python", "given"),
    [
        ("dist_train.sh", "train.py", ["a b.py"]),
        ("dist_test.sh", "test.py", ["a b.py", "c d.pth"]),
    ],
)
def test_ranks_of_one_machine_are_started(fakes: Path, script: str, python: str, given: list[str]):
    code, (call,) = run(script, *given, "4", "--work-dir", "x y", fakes=fakes)
    assert code == 0
    assert call[:2] == ["torchrun", "--standalone"]
    assert after(call, "--nproc_per_node") == "4"
    (path,) = [word for word in call if word.endswith(python)]
    assert Path(path).samefile(python)
    assert call[call.index(path) + 1 :] == [*given, "--launcher", "pytorch", "--work-dir", "x y"]


def test_a_training_is_told_of_the_signals_that_schedulers_send(fakes: Path):
    _, (call,) = run("dist_train.sh", "a.py", "4", fakes=fakes)
    assert {"SIGUSR1", "SIGTERM"} <= set(after(call, "--signals-to-handle").split(","))


@pytest.mark.parametrize(("script", "given"), [("dist_train.sh", []), ("dist_test.sh", ["c.pth"])])
@pytest.mark.parametrize("port", ["MASTER_PORT", "PORT"])
def test_other_machines_are_joined(fakes: Path, script: str, given: list[str], port: str):
    where = {"NNODES": "3", "NODE_RANK": "2", "MASTER_ADDR": "first", port: "123"}
    _, (call,) = run(script, "a.py", *given, "8", fakes=fakes, **where)
    flags = ("--nnodes", "--node_rank", "--master_addr", "--master_port", "--nproc_per_node")
    assert [after(call, flag) for flag in flags] == ["3", "2", "first", "123", "8"]
    assert "--standalone" not in call


@pytest.mark.parametrize(
    ("script", "arguments", "variables"),
    [
        ("dist_train.sh", ["a.py"], {}),
        ("dist_test.sh", ["a.py", "c.pth"], {}),
        ("dist_train.sh", ["a.py", "8"], {"NNODES": "2"}),
        ("dist_test.sh", ["a.py", "c.pth", "8"], {"NNODES": "2"}),
        ("slurm_train.sh", ["partition", "job", "a.py"], {}),
        ("slurm_test.sh", ["partition", "job", "a.py"], {}),
    ],
)
def test_a_call_that_lacks_something_starts_nothing(fakes: Path, script, arguments, variables):
    assert run(script, *arguments, fakes=fakes, **variables) == (2, [])


def test_slurm_gets_what_training_needs(fakes: Path):
    variables = {"GPUS": "16", "CPUS_PER_TASK": "4", "SRUN_ARGS": "--time 1:00:00 --exclude x"}
    arguments = ["part", "job", "a b.py", "work dir", "--seed", "1"]
    code, (call,) = run("slurm_train.sh", *arguments, fakes=fakes, **variables)
    assert code == 0
    flags = ("--partition", "--job-name", "--ntasks", "--ntasks-per-node", "--gres")
    assert [after(call, flag) for flag in flags] == ["part", "job", "16", "8", "gpu:8"]
    assert (after(call, "--cpus-per-task"), after(call, "--time")) == ("4", "1:00:00")
    assert {"--kill-on-bad-exit=1", "--signal=USR1@120"} <= set(call)
    tail = ["a b.py", "--work-dir", "work dir", "--launcher", "slurm", "--seed", "1"]
    assert call[-len(tail) :] == tail


def test_slurm_gets_what_evaluation_needs(fakes: Path):
    arguments = ["part", "job", "a.py", "c d.pth", "--tta"]
    code, (call,) = run("slurm_test.sh", *arguments, fakes=fakes, GPUS="2")
    assert code == 0
    assert (after(call, "--ntasks-per-node"), after(call, "--gres")) == ("2", "gpu:2")
    assert call[-5:] == ["a.py", "c d.pth", "--launcher", "slurm", "--tta"]


def test_a_run_that_slurm_stops_goes_on_from_its_checkpoint(fakes: Path, tmp_path: Path):
    (tmp_path / "srun_codes").write_text("138\n138\n")
    code, calls = run("slurm_train.sh", "part", "job", "a.py", "w", fakes=fakes)
    assert code == 0
    assert [call[0] for call in calls] == ["srun"] * 3
    assert "--resume" not in calls[0]
    assert calls[1] == calls[2] == [*calls[0], "--resume"]


def test_a_batch_job_that_slurm_stops_is_requeued_and_goes_on(fakes: Path, tmp_path: Path):
    (tmp_path / "srun_codes").write_text("138\n")
    arguments = ("slurm_train.sh", "part", "job", "a.py", "w")
    code, calls = run(*arguments, fakes=fakes, SLURM_JOB_ID="77")
    assert code == 0
    assert calls[1] == ["scontrol", "requeue", "77"]
    assert not any("--signal" in word for word in calls[0])  # the batch script asks for it
    _, calls = run(*arguments, fakes=fakes, SLURM_JOB_ID="77", SLURM_RESTART_COUNT="1")
    assert calls[-1][-1] == "--resume"


def test_a_failure_is_not_started_again(fakes: Path, tmp_path: Path):
    (tmp_path / "srun_codes").write_text("2\n")
    code, calls = run("slurm_train.sh", "part", "job", "a.py", "w", fakes=fakes)
    assert (code, len(calls)) == (2, 1)
