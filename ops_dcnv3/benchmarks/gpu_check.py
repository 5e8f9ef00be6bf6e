"""Everything that needs a GPU: builds, checks, sanitizers, benchmark, a record and a test log.

    python ops_dcnv3/benchmarks/gpu_check.py [--quick] [--continue] [--only STEP ...]
                                             [--time-limit SECONDS] [--output FOLDER]

Runs from a checkout with the python that runs it, which needs PyTorch and setuptools; fetches and
installs nothing. The operator is built into build/gpu-check/, where the results of each step lie
too: `--continue` runs what a run that was cut short has left, `--only` some steps once more.

Exit status: 0 everything passed; 1 something failed; 2 no CUDA device, no nvcc or no PyTorch; 3
nothing failed, but not everything was run.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gpu_check_process import Ended, stream
from gpu_check_report import Result, State, write_log

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "ops_dcnv3"))

from cuda_toolkit import NVCC_FLAGS, NoCudaError, find_nvcc, host_options  # noqa: E402

BENCHMARKS, TESTS = ROOT / "ops_dcnv3" / "benchmarks", ROOT / "ops_dcnv3" / "tests"
FOLDER = ROOT / "build" / "gpu-check"
PACKAGE = FOLDER / "package"
NOTHING_TO_RUN_ON, UNFINISHED = 2, 3
PROCESSES = 24  # most that one table may need when its checks take their process down
CHECKS_FAILED, DEVICE_LOST, CHECKS_OUT_OF_TIME, SANITIZER_ERRORS = 1, 3, 4, 86
MOST_SECONDS = 3600.0  # of any process: something hangs
GRACE = 60  # seconds that a table may overrun its limit before it is ended

PROBE = """
import importlib.util, json, platform
report = {"python": platform.python_version()}
for name in ("pytest", "triton", "setuptools", "timm", "torchvision", "DCNv4"):
    report[name] = "found" if importlib.util.find_spec(name) else "absent"
try:
    import torch
    report["torch"] = torch.__version__
    report["CUDA of torch"] = torch.version.cuda or "none"
    if torch.cuda.is_available():
        report["GPU"] = torch.cuda.get_device_name(0)
        report["GPUs"] = torch.cuda.device_count()
        report["capability"] = "%d.%d" % torch.cuda.get_device_capability(0)
        report["driver serves CUDA"] = torch._C._cuda_getDriverVersion()
except ImportError as error:
    report["torch"] = f"does not import: {error}"
print(json.dumps(report))
"""


@dataclass
class Run:
    """The command line, the machine, and the state of all steps."""

    args: argparse.Namespace
    machine: dict[str, str]
    state: State
    deadline: float  # of time.monotonic()

    @property
    def seconds_left(self) -> float:
        """Until the time limit of this command, and never more than a process may take."""
        return min(self.deadline - time.monotonic(), MOST_SECONDS)

    def environment(self, **more: str) -> dict[str, str]:
        """That of a step: the package built here, the tests and the backbone of this checkout."""
        paths = os.pathsep.join(map(str, (PACKAGE, TESTS, ROOT)))
        return os.environ | {"PYTHONPATH": paths, "PYTHONUNBUFFERED": "1"} | more


# ------------------------------------------------------------------------------------------ steps


def build(run: Run) -> Result:
    """The extension with its CUDA kernels, for the device found."""
    shutil.rmtree(PACKAGE, ignore_errors=True)
    archs = os.environ.get("TORCH_CUDA_ARCH_LIST") or run.machine["capability"]
    ended = stream(
        [
            *(sys.executable, "setup.py", "--quiet", "build"),
            *("--build-base", str(FOLDER / "objects"), "--build-lib", str(PACKAGE)),
        ],
        run.seconds_left,
        cwd=ROOT / "ops_dcnv3",
        env=os.environ
        | {"USE_CUDA": "1", "OPS_DCNV3_REQUIRE_NATIVE": "1", "TORCH_CUDA_ARCH_LIST": archs}
        | folder_of(run.machine["nvcc"]),
    )
    if ended.status != 0:
        return failed_or_out_of_time(ended, "setup.py build")
    code = "import ops_dcnv3; print(ops_dcnv3.__file__); print(ops_dcnv3.extension_info())"
    ended = stream([sys.executable, "-c", code], run.seconds_left, env=run.environment())
    printed = ended.output.splitlines()
    if ended.status != 0 or str(PACKAGE / "ops_dcnv3" / "__init__.py") not in printed:
        return Result("failed", f"the built package is not the one imported: {ended.output}")
    return Result("passed", f"for {archs}: {printed[-1]}")


def folder_of(nvcc: str) -> dict[str, str]:
    """The setting by which the build takes this nvcc; one outside a `bin` is on the path."""
    folder = Path(nvcc).parent
    return {"CUDA_HOME": str(folder.parent)} if folder.name == "bin" else {}


def failed_or_out_of_time(ended: Ended, what: str) -> Result:
    """Of a process that did not end well."""
    if ended.status is None:
        return Result("unfinished", f"{what}: its time was over")
    tail = "".join(ended.output.splitlines(keepends=True)[-20:])
    return Result("failed", f"{what}: exit status {ended.status}\n{tail}")


def not_built() -> Result | None:
    """A failure where there is no package to check."""
    if (PACKAGE / "ops_dcnv3" / "__init__.py").exists():
        return None
    return Result("failed", "nothing is built: run the step `build` first")


def table(
    run: Run, *, step: str, backend: str, prefix: tuple[str, ...] = (), **more: str
) -> Result:
    """The table of checks, in as many processes as it takes."""
    if missing := not_built():
        return missing
    log = run.state.log_of(step)
    options = ["--log", str(log), *(["--quick"] if run.args.quick else [])]
    options += ["--sanitize"] if prefix else []
    env = run.environment(OPS_DCNV3_BACKEND=backend, **more)
    errors = ""
    for _ in range(PROCESSES):
        before = run.state.entries(step)
        seconds = run.seconds_left
        limit = ["--time-limit", str(max(1.0, seconds - GRACE))]
        command = [*prefix, sys.executable, "-m", "gpu_checks", *options, *limit]
        ended = stream(command, seconds, env=env)
        if prefix and ended.status is not None and (found := sanitizer_errors(ended.output)) != 0:
            text = "reported nothing" if found is None else f"found {found} errors"
            lines = [line for line in ended.output.splitlines() if line.startswith("=========")]
            return Result("failed", f"the sanitizer {text}:\n" + "\n".join(lines[:80]))
        if ended.status in (0, CHECKS_FAILED):
            break
        if ended.status == CHECKS_OUT_OF_TIME:
            return Result("unfinished", run.state.summary(step))
        if ended.status is None:  # the check that it ended in is in the log, and not run again
            return Result("unfinished", f"ended after its time. {run.state.summary(step)}")
        errors = f"\nexit status {ended.status}: {ended.output[-2000:]}"
        if run.state.entries(step) == before:  # it does not even come to the first check
            return Result("failed", run.state.summary(step) + errors)
    else:
        return Result("failed", f"{PROCESSES} processes died. {run.state.summary(step)}{errors}")
    verdict = "failed" if run.state.failures(step) else "passed"
    return Result(verdict, run.state.summary(step))


def sanitizer_errors(output: str) -> int | None:
    """The number in compute-sanitizer's own summary; None where there is no summary."""
    found = re.findall(r"ERROR SUMMARY: (\d+) error|SUMMARY: \d+ hazards? .*\((\d+) error", output)
    return sum(int(number) for pair in found for number in pair if number) if found else None


def compile_trial(machine: dict[str, str], program: Path) -> list[str]:
    """The command that compiles the sanitizers' trial as the kernels are compiled."""
    arch = "-arch=sm_" + machine["capability"].replace(".", "")
    source = str(BENCHMARKS / "sanitizer_trial.cu")
    return [machine["nvcc"], *NVCC_FLAGS, *host_options(), arch, source, "-o", str(program)]


def sanitizer(run: Run, *, tool: str, fault: str) -> Result:
    """The small checks under compute-sanitizer, once it has proved that it works here."""
    program = shutil.which("compute-sanitizer")
    if program is None:
        return Result("skipped", "compute-sanitizer is not on the path")
    trial = FOLDER / "sanitizer_trial"
    ended = stream(compile_trial(run.machine, trial), run.seconds_left)
    if ended.status != 0:
        return failed_or_out_of_time(ended, "nvcc, for the trial of the sanitizer")
    prefix = (program, "--tool", tool, "--error-exitcode", str(SANITIZER_ERRORS))
    if tool == "memcheck":  # PyTorch tries calls that may fail; kernels' own raise in the checks
        prefix += ("--report-api-errors", "no")
    for what in ("right", fault):
        ended = stream([*prefix, str(trial), what], min(120, run.seconds_left))
        found = sanitizer_errors(ended.output)
        if found is None or (found > 0) != (what == fault):
            text = ended.output.strip()[-500:]
            return Result(
                "skipped",
                f"{tool} does not work here: of the trial program `{what}` it reports {found} "
                f"errors, exit status {ended.status}: {text}",
            )
    if tool == "racecheck":
        ended = stream([*prefix, str(trial), "exchange"], min(120, run.seconds_left))
        if found := sanitizer_errors(ended.output):
            return Result(
                "skipped",
                f"not judged: racecheck reports {found} errors of a right program, the exchange "
                "loop with which kernels add to shared memory (add_shared_two of lanes.h)",
            )
        if ended.status != 0:
            return failed_or_out_of_time(ended, "the exchange loop of lanes.h")
    # without PyTorch's cache of memory every tensor is an allocation, and its end is known
    more = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"} if tool == "memcheck" else {}
    return table(run, step=tool, backend="native", prefix=prefix, **more)


def benchmark(run: Run, *, step: str) -> Result:
    """One table of the benchmark, added to the record."""
    if missing := not_built():
        return missing
    record = run.state.record(run.args.output)
    command = [sys.executable, os.path.relpath(BENCHMARKS / "bench_cuda.py", ROOT)]
    command += ["--only", step, "--markdown", str(record)]
    command += ["--append"] if run.state.begun_record(record) else []
    command += ["--quick"] if run.args.quick else []
    env = run.environment(OPS_DCNV3_BACKEND="native")
    ended = stream(command, run.seconds_left, cwd=ROOT, env=env)
    if ended.status != 0:
        return failed_or_out_of_time(ended, f"bench_cuda.py --only {step}")
    missed = sum("| missed |" in line for line in ended.output.splitlines())
    return Result("passed", f"{missed} rows miss a goal" if missed else "no row misses a goal")


STEPS: dict[str, Callable[[Run], Result]] = {
    "build": build,
    "native": partial(table, step="native", backend="native"),
    "triton": partial(table, step="triton", backend="triton"),
    "memcheck": partial(sanitizer, tool="memcheck", fault="outside"),
    "racecheck": partial(sanitizer, tool="racecheck", fault="race"),
    "stages": partial(benchmark, step="stages"),
    "wide": partial(benchmark, step="wide"),
    "inference": partial(benchmark, step="inference"),
    "training": partial(benchmark, step="training"),
}


# ------------------------------------------------------------------------------------------- main


def look_around() -> dict[str, str]:
    """What there is, by name; "nvcc" and "GPU" only where they are."""
    try:
        printed = subprocess.run(
            [sys.executable, "-c", PROBE], capture_output=True, text=True, timeout=120
        ).stdout
        machine = {name: str(value) for name, value in json.loads(printed.splitlines()[-1]).items()}
    except (subprocess.TimeoutExpired, IndexError, ValueError):
        machine = {"torch": "does not start"}
    try:
        machine["nvcc"] = find_nvcc()
    except NoCudaError as reason:
        machine["why no nvcc"] = str(reason)
    machine["compute-sanitizer"] = shutil.which("compute-sanitizer") or "absent"
    return machine


def why_not(machine: dict[str, str]) -> str:
    """What is missing for everything, in words; empty if nothing."""
    if machine.get("setuptools") == "absent":
        install = f"{sys.executable} -m pip install setuptools"
        return f"setuptools in {sys.executable}, which builds the operator, found none ({install})"
    if "CUDA of torch" not in machine:
        return f"PyTorch >= 2.10 in {sys.executable}, torch {machine['torch']}"
    if "GPU" not in machine:
        return f"a CUDA device, torch {machine['torch']} finds none"
    return "" if "nvcc" in machine else f"nvcc, found {machine['why no nvcc']}"


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="gpu_check.py",
        description=__doc__.partition("\n")[0],
        epilog="steps: " + ", ".join(STEPS),
    )
    parser.add_argument("--quick", action="store_true", help="short ones, to see that it works")
    parser.add_argument("--only", nargs="+", choices=STEPS, metavar="STEP", help="these, anew")
    parser.add_argument(
        "--continue", action="store_true", dest="go_on", help="what an earlier run has left"
    )
    parser.add_argument(
        "--time-limit", type=float, default=float("inf"), metavar="SECONDS", help="for this command"
    )
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER", help="of record and log; docs/benchmarks"
    )
    return parser.parse_args(arguments)


def chosen_steps(args: argparse.Namespace, state: State) -> list[str]:
    """The steps of this command; those of `--only` forget what they have left behind."""
    if args.go_on:
        ended = {name for name, result in state.results.items() if result.status != "unfinished"}
        return [name for name in args.only or STEPS if name not in ended]
    if args.only is None:
        state.forget()
        return list(STEPS)
    for name in args.only:
        state.forget(name)
    return list(args.only)


def main(arguments: list[str] | None = None) -> int:
    """Runs the steps; returns the exit status."""
    start = time.monotonic()
    args = parse_arguments(arguments)
    machine = look_around()
    if reason := why_not(machine):
        print(f"gpu_check: expected {reason}", file=sys.stderr)
        return NOTHING_TO_RUN_ON
    if args.output is None:  # a quick run is no record
        args.output = FOLDER if args.quick else ROOT / "docs" / "benchmarks"
    args.output = args.output.resolve()
    for name, value in machine.items():
        print(f"{name:20} {value}")
    state = State(FOLDER, ROOT, machine)
    run = Run(args, machine, state, start + args.time_limit)
    for name in chosen_steps(args, state):
        if run.seconds_left < 10:
            break
        print(f"\n=== {name}", flush=True)
        began = time.monotonic()
        try:
            result = STEPS[name](run)
        except Exception as error:  # a step that breaks must not take the others with it
            result = Result("failed", f"gpu_check: {error!r}")
        state.keep(name, result, time.monotonic() - began)
        print(f"=== {name}: {result.status}: {result.detail}", flush=True)
        if name == "build" and result.status != "passed":
            break
    command = "python " + " ".join([os.path.relpath(sys.argv[0]), *sys.argv[1:]])
    log = write_log(state, list(STEPS), args.output, command)
    print(f"\n{state.overview(list(STEPS))}\n\ntest log: {log}")
    if state.record(args.output).exists():
        print(f"benchmark: {state.record(args.output)}")
    statuses = [
        state.results[name].status if name in state.results else "unfinished" for name in STEPS
    ]
    if "failed" in statuses:
        return 1
    return UNFINISHED if "unfinished" in statuses else 0


if __name__ == "__main__":
    sys.exit(main())
