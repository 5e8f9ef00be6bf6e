"""`make gpu-check` where there is no GPU: its messages, its state, its report, its ways to end."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from benchmark_scripts import FOLDER, imported

ROOT = Path(__file__).resolve().parents[2]
MACHINE = {"torch": "2.11.0", "CUDA of torch": "13.0", "GPU": "NVIDIA H200", "nvcc": "/bin/true"}
MACHINE |= {"capability": "9.0", "compute-sanitizer": "absent"}

# A table of checks in which the second takes its process down and the last one never ends.
FAKE_TABLE = """
import json, os, sys, time
log = sys.argv[sys.argv.index("--log") + 1]
done = {json.loads(line)["name"] for line in open(log)} if os.path.exists(log) else set()
for name, status in %s:
    if name in done:
        continue
    for state in ("started", status):
        with open(log, "a") as file:
            entry = {"name": name, "status": state, "seconds": 0.5, "detail": "some figures"}
            file.write(json.dumps(entry) + "\\n")
        if status == "dies" and state == "started":
            os._exit(139)
        if status == "hangs" and state == "started":
            time.sleep(600)
print("%s")
sys.exit(%d)
"""


@pytest.fixture(scope="module")
def gpu_check() -> Iterator[ModuleType]:
    """The script, imported."""
    with imported("gpu_check") as modules:
        yield modules["gpu_check"]


@pytest.fixture
def folder(gpu_check, monkeypatch, tmp_path) -> Path:
    """A build folder of this test alone, with something built in it."""
    monkeypatch.setattr(gpu_check, "FOLDER", tmp_path)
    monkeypatch.setattr(gpu_check, "PACKAGE", tmp_path / "package")
    monkeypatch.setattr(gpu_check, "TESTS", tmp_path / "tests")
    monkeypatch.setattr(gpu_check, "GRACE", 0)
    (tmp_path / "package" / "ops_dcnv3").mkdir(parents=True)
    (tmp_path / "package" / "ops_dcnv3" / "__init__.py").touch()
    return tmp_path


def put_table(folder: Path, *checks: tuple[str, str], prints: str = "", status: int = 0) -> None:
    """A `gpu_checks` to run in place of the real one."""
    package = folder / "tests" / "gpu_checks"
    package.mkdir(parents=True, exist_ok=True)
    (package / "__main__.py").write_text(FAKE_TABLE % (list(checks), prints, status))


def make_run(gpu_check: ModuleType, folder: Path, seconds: float = 60):
    state = gpu_check.State(folder, ROOT, MACHINE)
    args = argparse.Namespace(quick=False, output=folder / "out")
    return gpu_check.Run(args, MACHINE, state, time.monotonic() + seconds)


@pytest.mark.slow
def test_without_a_gpu_there_is_one_line_and_exit_status_2():
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    done = subprocess.run(
        [sys.executable, str(FOLDER / "gpu_check.py")], capture_output=True, text=True
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("gpu_check: expected a CUDA device")
    assert done.stdout == ""


@pytest.mark.parametrize(
    "missing, words",
    [
        (("CUDA of torch",), "expected PyTorch >= 2.10 in"),
        (("GPU",), "expected a CUDA device, torch 2.11.0 finds none"),
        (("nvcc",), "expected nvcc, found no nvcc: planted"),
    ],
)
def test_what_is_missing_is_named(gpu_check, monkeypatch, capsys, missing, words):
    machine = {name: value for name, value in MACHINE.items() if name not in missing}
    machine["why no nvcc"] = "no nvcc: planted"
    monkeypatch.setattr(gpu_check, "look_around", lambda: machine)
    assert gpu_check.main([]) == 2
    assert words in capsys.readouterr().err


def test_a_python_without_torch_is_found_out(gpu_check, monkeypatch, tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('planted')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    machine = gpu_check.look_around()
    assert machine["torch"] == "does not import: planted"
    assert "expected" not in gpu_check.why_not(machine)
    assert gpu_check.why_not(machine).startswith("PyTorch >= 2.10 in")


@pytest.mark.slow
def test_a_python_without_setuptools_is_found_out_and_torch_is_not_blamed(
    gpu_check, monkeypatch, tmp_path
):
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['setuptools'] = None")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    machine = gpu_check.look_around()
    assert machine["torch"] == torch.__version__
    reason = gpu_check.why_not(machine)
    assert reason.startswith("setuptools in") and "-m pip install setuptools" in reason


@pytest.mark.slow
def test_nvcc_is_looked_for_as_the_build_does_and_is_what_the_build_is_told(
    gpu_check, folder, monkeypatch
):
    for name in ("named", "on_the_path"):
        nvcc = folder / name / "bin" / "nvcc"
        nvcc.parent.mkdir(parents=True)
        nvcc.write_text("#!/bin/sh\n")
        nvcc.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}/on_the_path/bin{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_PATH", raising=False)
    told = []

    def stop(command, seconds, *, env, **settings):
        told.append(env["CUDA_HOME"])
        return gpu_check.Ended(1, "")

    monkeypatch.setattr(gpu_check, "stream", stop)
    for variable, found in (
        ("/no/toolkit", None),
        (f"{folder}/named", "named"),
        ("", "on_the_path"),
    ):
        monkeypatch.setenv("CUDA_HOME", variable)
        machine = gpu_check.look_around()
        if found is None:
            assert "nvcc" not in machine and "CUDA_HOME is '/no/" in machine["why no nvcc"]
            continue
        assert machine["nvcc"] == str(folder / found / "bin" / "nvcc")
        run = make_run(gpu_check, folder)
        run.machine = MACHINE | machine
        assert gpu_check.build(run).status == "failed"
        assert told.pop() == str(folder / found)


@pytest.mark.slow
def test_the_real_table_runs_on_the_built_package_and_is_resumed(gpu_check, tmp_path):
    """The command line that the steps use, on the CPU with this installation."""
    log = tmp_path / "log.jsonl"
    command = [sys.executable, "-m", "gpu_checks", "--device", "cpu", "--log", str(log)]
    command += ["--only", "shapes/", "--sanitize", "--time-limit", "60"]
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    env = os.environ | {"PYTHONPATH": paths}
    ended = gpu_check.stream(command, 120, env=env)
    assert ended.status == 0 and "passed" in ended.output, ended.output
    assert json.loads(log.read_text().splitlines()[-1])["status"] == "passed"
    assert " 0 checks" in gpu_check.stream(command, 120, env=env).output


def test_a_check_that_takes_its_process_down_is_a_failure_and_the_others_still_run(
    gpu_check, folder
):
    put_table(folder, ("a", "passed"), ("b", "dies"), ("c", "passed"), ("d", "skipped"))
    run = make_run(gpu_check, folder)
    result = gpu_check.table(run, step="native", backend="native")
    assert result.status == "failed"
    assert result.detail == "2 passed, 1 skipped, 1 ended their process: b"


def test_a_failed_check_fails_its_step(gpu_check, folder):
    put_table(folder, ("a", "passed"), ("b", "failed"), status=1)
    result = gpu_check.table(make_run(gpu_check, folder), step="native", backend="native")
    assert (result.status, result.detail) == ("failed", "1 passed, 1 failed: b")


def test_a_table_whose_checks_all_pass_is_passed(gpu_check, folder):
    put_table(folder, ("a", "passed"), ("b", "passed"))
    result = gpu_check.table(make_run(gpu_check, folder), step="native", backend="native")
    assert (result.status, result.detail) == ("passed", "2 passed")


@pytest.mark.slow
def test_a_check_that_never_ends_is_ended_and_the_rest_can_be_continued(gpu_check, folder):
    put_table(folder, ("a", "passed"), ("b", "hangs"), ("c", "passed"))
    result = gpu_check.table(make_run(gpu_check, folder, 2), step="native", backend="native")
    assert result.status == "unfinished"
    result = gpu_check.table(make_run(gpu_check, folder), step="native", backend="native")
    assert (result.status, result.detail) == ("failed", "2 passed, 1 ended their process: b")


def test_a_table_that_does_not_start_is_a_failure_with_what_it_said(gpu_check, folder):
    put_table(folder, prints="cannot start", status=7)
    result = gpu_check.table(make_run(gpu_check, folder), step="native", backend="native")
    assert result.status == "failed"
    assert "exit status 7: cannot start" in result.detail


def test_a_time_that_is_over_leaves_a_table_unfinished(gpu_check, folder):
    put_table(folder, ("a", "passed"), status=gpu_check.CHECKS_OUT_OF_TIME)
    result = gpu_check.table(make_run(gpu_check, folder), step="native", backend="native")
    assert (result.status, result.detail) == ("unfinished", "1 passed")


def test_steps_without_a_built_package_say_so(gpu_check, folder):
    shutil.rmtree(folder / "package")
    run = make_run(gpu_check, folder)
    for step in ("native", "triton", "stages"):
        result = gpu_check.STEPS[step](run)
        assert result == gpu_check.Result("failed", "nothing is built: run the step `build` first")


# ------------------------------------------------------------------------------------ sanitizers


@pytest.mark.parametrize(
    "output, errors",
    [
        ("========= ERROR SUMMARY: 0 errors", 0),
        ("========= ERROR SUMMARY: 1 error", 1),
        ("========= ERROR SUMMARY: 12 errors", 12),
        ("========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)", 0),
        ("========= RACECHECK SUMMARY: 2 hazards displayed (1 error, 1 warning)", 1),
        ("========= RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings)", 1),
        ("Error: the target application could not be started", None),
    ],
)
def test_the_summary_of_a_sanitizer_is_read(gpu_check, output, errors):
    assert gpu_check.sanitizer_errors(f"first\n{output}\nlast\n") == errors


def fake_sanitizer(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A `compute-sanitizer` on the path; the trial's last argument says what it must find."""
    program = folder / "bin" / "compute-sanitizer"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n" + script)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")


REPORT = 'echo "========= ERROR SUMMARY: {} errors"\n'
FINDS_FAULTS = 'case "$*" in *outside) ' + REPORT.format(1) + "exit 86 ;; *right) "
FINDS_FAULTS += REPORT.format(0) + "exit 0 ;; esac\n"
FINDS_FAULTS += 'while [ "${1#--}" != "$1" ]; do shift 2; done\n'  # its own options


def test_a_sanitizer_that_finds_the_planted_fault_runs_the_table(gpu_check, folder, monkeypatch):
    put_table(folder, ("a", "passed"))
    fake_sanitizer(folder, monkeypatch, FINDS_FAULTS + '"$@"\n' + REPORT.format(0))
    run = make_run(gpu_check, folder)
    result = gpu_check.sanitizer(run, tool="memcheck", fault="outside")
    assert (result.status, result.detail) == ("passed", "1 passed")


def test_errors_of_the_sanitizer_fail_although_every_check_passed(gpu_check, folder, monkeypatch):
    put_table(folder, ("a", "passed"))
    fake_sanitizer(folder, monkeypatch, FINDS_FAULTS + '"$@"\n' + REPORT.format(3))
    run = make_run(gpu_check, folder)
    result = gpu_check.sanitizer(run, tool="memcheck", fault="outside")
    assert result.status == "failed"
    assert result.detail.startswith("the sanitizer found 3 errors")


def test_a_sanitizer_that_falls_silent_over_the_table_fails(gpu_check, folder, monkeypatch):
    put_table(folder, ("a", "passed"))
    fake_sanitizer(folder, monkeypatch, FINDS_FAULTS + '"$@"\n')
    run = make_run(gpu_check, folder)
    result = gpu_check.sanitizer(run, tool="memcheck", fault="outside")
    assert result.status == "failed" and "reported nothing" in result.detail


@pytest.mark.parametrize("script", [REPORT.format(0), "echo cannot attach; exit 1\n"])
def test_a_sanitizer_that_does_not_find_the_planted_fault_is_skipped_with_the_reason(
    gpu_check, folder, monkeypatch, script
):
    fake_sanitizer(folder, monkeypatch, script)
    run = make_run(gpu_check, folder)
    result = gpu_check.sanitizer(run, tool="memcheck", fault="outside")
    assert result.status == "skipped" and "memcheck does not work here" in result.detail


def racecheck_that_reports(errors: int) -> str:
    """A script that finds the planted race, and so many errors in the exchange."""
    cases = (("*race", 1, 86), ("*right", 0, 0), ("*exchange", errors, 86 if errors else 0))
    lines = [f"{end}) {REPORT.format(number)} exit {status} ;;\n" for end, number, status in cases]
    table = 'while [ "${1#--}" != "$1" ]; do shift 2; done\n"$@"\n' + REPORT.format(0)
    return f'case "$*" in {"".join(lines)} esac\n{table}'


@pytest.mark.parametrize("errors, status", [(0, "passed"), (2, "skipped")])
def test_a_racecheck_that_flags_a_right_exchange_judges_nothing(
    gpu_check, folder, monkeypatch, errors, status
):
    put_table(folder, ("a", "passed"))
    fake_sanitizer(folder, monkeypatch, racecheck_that_reports(errors))
    result = gpu_check.STEPS["racecheck"](make_run(gpu_check, folder))
    assert result.status == status
    assert result.detail.startswith("not judged: racecheck reports 2 errors") == bool(errors)


def test_an_exchange_that_fails_without_a_word_of_the_tool_fails(gpu_check, folder, monkeypatch):
    script = racecheck_that_reports(0).replace(
        f"*exchange) {REPORT.format(0)} exit 0", "*exchange) exit 1"
    )
    fake_sanitizer(folder, monkeypatch, script)
    result = gpu_check.STEPS["racecheck"](make_run(gpu_check, folder))
    assert result.status == "failed" and "the exchange loop of lanes.h" in result.detail


def test_without_a_sanitizer_its_steps_are_skipped(gpu_check, folder, monkeypatch):
    monkeypatch.setenv("PATH", str(folder))
    result = gpu_check.STEPS["racecheck"](make_run(gpu_check, folder))
    assert result == gpu_check.Result("skipped", "compute-sanitizer is not on the path")


@pytest.mark.slow
def test_the_trial_program_compiles(gpu_check, tmp_path):
    try:
        nvcc = gpu_check.find_nvcc()
    except gpu_check.NoCudaError as reason:
        pytest.skip(str(reason))
    target = tmp_path / "trial"
    subprocess.run(gpu_check.compile_trial(MACHINE | {"nvcc": nvcc}, target), check=True)
    assert target.exists()


# ------------------------------------------------------------------------------ the whole command


@pytest.fixture
def steps(gpu_check, folder, monkeypatch) -> dict[str, str]:
    """Steps that only say how they end, by name; to be changed by the test."""
    statuses = dict.fromkeys(("build", "native", "triton", "stages"), "passed")
    ran = []

    def step(name: str):
        def run(run):
            ran.append(name)
            if statuses[name] == "breaks":
                raise OSError("a planted error")
            return gpu_check.Result(statuses[name], f"detail of {name}")

        return run

    monkeypatch.setattr(gpu_check, "STEPS", {name: step(name) for name in statuses})
    monkeypatch.setattr(gpu_check, "look_around", lambda: MACHINE)
    monkeypatch.setattr(sys, "argv", ["gpu_check.py"])
    statuses["ran"] = ran  # type: ignore[assignment]
    return statuses


def command(gpu_check: ModuleType, folder: Path, *arguments: str) -> int:
    return gpu_check.main([*arguments, "--output", str(folder / "out")])


def test_everything_passed_is_exit_status_0(gpu_check, folder, steps, capsys):
    assert command(gpu_check, folder) == 0
    assert steps["ran"] == ["build", "native", "triton", "stages"]
    printed = capsys.readouterr().out
    assert "detail of stages" in printed and "NVIDIA H200" in printed


@pytest.mark.parametrize("how", ["failed", "breaks"])
def test_a_failed_step_is_exit_status_1_and_later_steps_still_run(gpu_check, folder, steps, how):
    steps["native"] = how
    assert command(gpu_check, folder) == 1
    assert steps["ran"] == ["build", "native", "triton", "stages"]


def test_a_failed_build_ends_the_run(gpu_check, folder, steps):
    steps["build"] = "failed"
    assert command(gpu_check, folder) == 1
    assert steps["ran"] == ["build"]


def test_a_skipped_step_is_no_failure(gpu_check, folder, steps):
    steps["triton"] = "skipped"
    assert command(gpu_check, folder) == 0


def test_what_is_unfinished_is_exit_status_3_and_is_continued(gpu_check, folder, steps):
    steps["triton"] = "unfinished"
    assert command(gpu_check, folder) == 3
    steps["ran"].clear()
    steps["triton"] = "passed"
    assert command(gpu_check, folder, "--continue") == 0
    assert steps["ran"] == ["triton"]


def test_steps_are_run_one_by_one_and_then_all_is_passed(gpu_check, folder, steps):
    for name in ("build", "native", "triton"):
        assert command(gpu_check, folder, "--only", name) == 3
    assert command(gpu_check, folder, "--only", "stages") == 0
    assert steps["ran"] == ["build", "native", "triton", "stages"]


def test_a_run_without_options_forgets_what_was(gpu_check, folder, steps):
    steps["native"] = "failed"
    assert command(gpu_check, folder) == 1
    (folder / "native.jsonl").write_text("{}")
    steps["native"] = "passed"
    assert command(gpu_check, folder) == 0
    assert not (folder / "native.jsonl").exists()


def test_no_time_left_runs_nothing(gpu_check, folder, steps):
    assert command(gpu_check, folder, "--time-limit", "1") == 3
    assert steps["ran"] == []


def test_results_of_other_sources_or_another_gpu_are_dropped(gpu_check, folder, steps, monkeypatch):
    assert command(gpu_check, folder) == 0
    assert set(gpu_check.State(folder, ROOT, MACHINE).results) == {
        "build",
        "native",
        "triton",
        "stages",
    }
    assert gpu_check.State(folder, ROOT, {**MACHINE, "GPU": "NVIDIA A100"}).results == {}
    monkeypatch.setattr(gpu_check.State, "_fingerprint", lambda self: "other")
    assert gpu_check.State(folder, ROOT, MACHINE).results == {}


def test_the_fingerprint_is_of_the_sources_and_of_nothing_built(gpu_check, tmp_path):
    project = tmp_path / "ops_dcnv3"
    for name in ("src/a.py", "src/b.cu", "build/c.py", "src/d.md"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text("one")

    def fingerprint() -> str:
        return gpu_check.State(tmp_path / "state", tmp_path, MACHINE).sources

    first = fingerprint()
    for name, changes in (("build/c.py", False), ("src/d.md", False), ("src/b.cu", True)):
        (project / name).write_text("two")
        assert (fingerprint() != first) == changes, name


# -------------------------------------------------------------------------------------- the record


def entry(name: str, status: str, detail: str = "") -> str:
    return json.dumps({"name": name, "status": status, "seconds": 1.25, "detail": detail}) + "\n"


def test_the_log_names_machine_command_steps_and_every_check_but_no_private_path(gpu_check, folder):
    run = make_run(gpu_check, folder)
    state = run.state
    private = "/" + "home/ada/build/file.py"
    state.log_of("native").write_text(
        entry("small/one", "passed", "error / allowed: output 0.48")
        + entry("small/two", "started")
        + entry("small/two", "failed", f'  File "{private}", line 3  \nAssertionError: planted')
        + entry("large/three", "started")
    )
    result = gpu_check.Result("failed", state.summary("native"))
    state.keep("native", result, 12.0)
    state.keep("memcheck", gpu_check.Result("skipped", "compute-sanitizer is not here"), 0.1)
    path = gpu_check.write_log(state, list(gpu_check.STEPS), folder / "out", "python gpu_check.py")
    assert path.name == f"dcnv3_nvidia_h200_{state.date}_tests.md"
    text = path.read_text()
    assert "`python gpu_check.py`" in text and "- GPU: NVIDIA H200" in text
    assert "error / allowed: output 0.48" in text and "AssertionError: planted" in text
    assert "1 passed, 1 failed, 1 ended their process: small/two; large/three" in text
    assert "compute-sanitizer is not here" in text
    assert "build      unfinished" in text
    assert private not in text and "<path>" in text
    assert text.endswith("\n") and all(line == line.rstrip() for line in text.splitlines())


@pytest.mark.parametrize("parent", ["home/ada", "data3/ada", "root", "var/tmp", "Users/ada"])
def test_a_path_of_one_machine_is_taken_out_whatever_its_parent(gpu_check, parent):
    path = f"/{parent}/build/file.py"
    for text in (f'File "{path}", line 3', f"found in {path}", f"file://{path}", f"({path})"):
        scrubbed = sys.modules["gpu_check_report"].scrub(text, ROOT)
        assert scrubbed == text.replace(path, "<path>")


@pytest.mark.parametrize(
    "text",
    ["/usr/local/cuda/bin/nvcc", "https://example.org/a/b", "3/4/5", "error / allowed", "and/or"]
    + ["ops_dcnv3/tests/a.py", "/opt/rocm/bin/hipcc", "grad /input"],
)
def test_what_is_no_path_of_one_machine_stays(gpu_check, text):
    assert sys.modules["gpu_check_report"].scrub(text, ROOT) == text


def test_tables_of_the_benchmark_are_added_to_the_record_that_this_run_began(gpu_check, folder):
    state = make_run(gpu_check, folder).state
    path = state.record(folder / "out")
    path.parent.mkdir()
    path.write_text("of an earlier run")
    assert not state.begun_record(path)
    path.write_text("the first table")
    assert state.begun_record(path)
    state.keep("stages", gpu_check.Result("passed", ""), 1.0)
    assert gpu_check.State(folder, ROOT, MACHINE).begun_record(path)
    state.forget()
    assert not state.begun_record(path)


def test_interrupted_time_adds_up(gpu_check, folder):
    state = make_run(gpu_check, folder).state
    state.keep("native", gpu_check.Result("unfinished", ""), 10.0)
    state.keep("native", gpu_check.Result("passed", ""), 5.0)
    assert state.results["native"].seconds == 15.0
