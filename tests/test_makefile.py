"""The Makefile: what it promises, what it refuses, when it repeats a step; without a download."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TARGETS = (
    "setup setup-all demo test test-fast lint format wheel bench sass-report gpu-check help".split()
)
SETTINGS = (
    *("CXX", "OPS_DCNV3_REQUIRE_NATIVE", "USE_CUDA"),
    *("CUDA_PATH", "NVCC_CCBIN", "TORCH_CUDA_ARCH_LIST"),
)
STEPS = ("venv", "torch", "operator", "core", "mmcv", "dev")
# What a line of the set-up looks like when `make --dry-run` prints it.
STEP_COMMANDS = {
    "venv": "-m venv .venv",
    "torch": "-r requirements/torch.txt",
    "operator": "-e ./ops_dcnv3",
    "core": "-e '.[train]'",
    "mmcv": "tools/build_mmcv.py",
    "dev": "-e '.[train,openmmlab,deepspeed,export,dev]'",
}

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def make(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs make in ``folder``, free of the settings of a make around this test and of nvcc."""
    inherited = {
        key: value
        for key, value in os.environ.items()
        if key not in (*SETTINGS, "MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PYTHON", "TESTS")
    }
    return subprocess.run(
        ["make", *arguments],
        cwd=folder,
        env=inherited | {"CUDA_HOME": "/no/toolkit"} | environment,
        capture_output=True,
        text=True,
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder, with a blank in its name, that holds what the set-up depends on."""
    folder = tmp_path / "a checkout"
    files = ("Makefile", "setup.py", "pyproject.toml", "tools/build_mmcv.py")
    operator = ("setup.py", "pyproject.toml", "cuda_toolkit.py", "cuda_objects.py")
    for name in (*files, *(f"ops_dcnv3/{name}" for name in operator)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(ROOT / "requirements", folder / "requirements")
    csrc = folder / "ops_dcnv3" / "src" / "ops_dcnv3" / "csrc"
    csrc.mkdir(parents=True)
    (csrc / "kernel.cpp").write_text("// a source of the operator\n")
    return folder


def mark_as_set_up(folder: Path, *, operator: str = "native-c++") -> None:
    """Leaves the stamps of a finished ``make setup-all``, all younger than any source."""
    stamps = folder / ".venv" / ".stamps"
    stamps.mkdir(parents=True)
    for age, step in zip(range(len(STEPS), 0, -1), STEPS, strict=True):
        stamp = stamps / (f"operator-{operator}" if step == "operator" else step)
        stamp.touch()
        os.utime(stamp, (time.time() - age, time.time() - age))
    for path in folder.rglob("*"):
        if path.is_file() and stamps not in path.parents:
            os.utime(path, (time.time() - 1000, time.time() - 1000))


def planned_steps(
    folder: Path, *arguments: str, target: str = "setup-all", **environment: str
) -> list[str]:
    """The set-up steps that make would run."""
    plan = make(folder, "--dry-run", target, *arguments, **environment)
    assert plan.returncode == 0, plan.stderr
    return [step for step, command in STEP_COMMANDS.items() if command in plan.stdout]


def fake_python(folder: Path, script: str) -> str:
    """An executable that stands in for python3 and runs ``script`` in sh."""
    path = folder / "fake_python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_help_lists_every_target_with_a_description():
    printed = make(ROOT, "help").stdout
    for target in TARGETS:
        assert re.search(rf"^  {target} +\S+", printed, re.MULTILINE), target


def test_every_phony_target_is_in_the_help():
    (phony,) = re.findall(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert sorted(phony.split()) == sorted(TARGETS)


def test_make_without_a_target_prints_the_help():
    assert make(ROOT).stdout == make(ROOT, "help").stdout


def test_a_python_before_3_10_is_refused_in_one_line(checkout: Path):
    python = fake_python(
        checkout,
        'if [ "$1" = --version ]; then echo Python 3.9.18; exit; fi\n'
        f"""exec '{sys.executable}' -c "import sys; sys.version_info = (3, 9, 18); $2" """,
    )
    result = make(checkout, "setup", PYTHON=f"'{python}'")
    assert result.returncode != 0
    assert "expected Python >= 3.10, got Python 3.9.18" in result.stderr
    assert len([line for line in result.stderr.splitlines() if "Error" not in line]) == 1
    assert not (checkout / ".venv").exists()


def test_a_python_that_is_not_there_is_refused(checkout: Path):
    result = make(checkout, "setup", "PYTHON=no-such-python")
    assert result.returncode != 0
    assert "expected Python >= 3.10, got" in result.stderr
    assert "no-such-python" in result.stderr


def test_a_python_without_venv_is_told_the_package_to_install(checkout: Path):
    python = fake_python(checkout, 'case "$2" in *ensurepip*) exit 1;; esac')
    result = make(checkout, "setup", PYTHON=f"'{python}'")
    assert result.returncode != 0
    assert "apt-get install python3-venv" in result.stderr
    assert not (checkout / ".venv").exists()


def test_an_interrupted_step_leaves_no_stamp(checkout: Path):
    python = fake_python(checkout, 'if [ "$1" = -m ]; then mkdir -p .venv; exit 1; fi')
    assert make(checkout, "setup", PYTHON=f"'{python}'").returncode != 0
    assert (checkout / ".venv").exists()
    assert not list((checkout / ".venv").rglob("venv"))
    assert planned_steps(checkout, target="setup") == ["venv", "torch", "operator", "core"]


def test_the_set_up_of_a_fresh_checkout_runs_every_step(checkout: Path):
    assert planned_steps(checkout) == list(STEPS)
    assert planned_steps(checkout, target="setup") == list(STEPS[: STEPS.index("core") + 1])


def test_a_second_set_up_has_nothing_to_do(checkout: Path):
    mark_as_set_up(checkout)
    assert planned_steps(checkout) == []


@pytest.mark.parametrize(
    ("changed", "repeated"),
    [
        ("requirements/torch.txt", ["torch", "operator", "core", "mmcv", "dev"]),
        ("requirements/constraints.txt", ["torch", "operator", "core", "mmcv", "dev"]),
        ("ops_dcnv3/src/ops_dcnv3/csrc/kernel.cpp", ["operator", "core", "mmcv", "dev"]),
        ("ops_dcnv3/setup.py", ["operator", "core", "mmcv", "dev"]),
        ("ops_dcnv3/cuda_toolkit.py", ["operator", "core", "mmcv", "dev"]),
        ("setup.py", ["core", "mmcv", "dev"]),
        ("pyproject.toml", ["core", "mmcv", "dev"]),
        ("requirements/openmmlab.txt", ["torch", "operator", "core", "mmcv", "dev"]),
        ("requirements/deployment.txt", ["dev"]),
        ("tools/build_mmcv.py", ["mmcv", "dev"]),
        ("Makefile", []),
    ],
)
def test_a_change_repeats_the_steps_that_depend_on_it(
    checkout: Path, changed: str, repeated: list[str]
):
    mark_as_set_up(checkout)
    (checkout / changed).touch()
    assert planned_steps(checkout) == repeated


def test_a_compiler_that_has_come_or_gone_rebuilds_the_operator(checkout: Path):
    mark_as_set_up(checkout, operator="reference")
    assert planned_steps(checkout, "CXX=no-such-compiler") == []
    assert "operator" in planned_steps(checkout, f"CXX={shutil.which('sh')}")


def test_another_compiler_rebuilds_the_operator(checkout: Path):
    mark_as_set_up(checkout, operator="native-env_sh")
    assert planned_steps(checkout, "CXX=env sh") == []
    for other in ("sh", "env bash", shutil.which("env")):
        assert planned_steps(checkout, f"CXX={other}") == ["operator", "core", "mmcv", "dev"], other


@pytest.fixture
def toolkit(tmp_path: Path) -> str:
    """A folder, with a blank in its name, that has an nvcc."""
    nvcc = tmp_path / "a toolkit" / "bin" / "nvcc"
    nvcc.parent.mkdir(parents=True)
    nvcc.touch(0o755)
    return str(nvcc.parents[1])


def test_an_nvcc_that_has_come_or_gone_rebuilds_the_operator(checkout: Path, toolkit: str):
    mark_as_set_up(checkout)
    assert planned_steps(checkout, CUDA_HOME=toolkit) == ["operator", "core", "mmcv", "dev"]
    assert planned_steps(checkout, CUDA_HOME="", CUDA_PATH=toolkit) == [
        "operator",
        "core",
        "mmcv",
        "dev",
    ]
    on_path = f"{toolkit}/bin:{os.environ['PATH']}"
    assert planned_steps(checkout, CUDA_HOME="", PATH=on_path) == [
        "operator",
        "core",
        "mmcv",
        "dev",
    ]
    assert planned_steps(checkout, CUDA_HOME=toolkit, USE_CUDA="0") == []
    says_nothing = 4294967295  # cksum of what this nvcc prints as its version
    name = "native-c++-" + re.sub("[^A-Za-z0-9.+-]", "_", f"{toolkit}/bin/nvcc-{says_nothing}  ")
    shutil.rmtree(checkout / ".venv")
    mark_as_set_up(checkout, operator=name)
    assert planned_steps(checkout, CUDA_HOME=toolkit) == []
    assert planned_steps(checkout) == ["operator", "core", "mmcv", "dev"]
    settings = {"TORCH_CUDA_ARCH_LIST": "8.0;9.0", "USE_CUDA": "1", "NVCC_CCBIN": "g++-11"}
    for setting, value in settings.items():
        changed = planned_steps(checkout, CUDA_HOME=toolkit, **{setting: value})
        assert changed == ["operator", "core", "mmcv", "dev"], setting
    Path(toolkit, "bin", "nvcc").write_text("#!/bin/sh\necho release 99\n")
    assert planned_steps(checkout, CUDA_HOME=toolkit) == ["operator", "core", "mmcv", "dev"]


@pytest.mark.parametrize("demand", ["USE_CUDA", "OPS_DCNV3_REQUIRE_NATIVE"])
def test_a_set_up_without_a_compiler_does_not_meet_a_demand_for_kernels(checkout, demand):
    mark_as_set_up(checkout, operator="reference")
    assert planned_steps(checkout, "CXX=no-such-compiler") == []
    changed = planned_steps(checkout, "CXX=no-such-compiler", **{demand: "1"})
    assert changed == ["operator", "core", "mmcv", "dev"]


@pytest.mark.parametrize("wanted", ["", "8.0 9.0"])
def test_the_set_up_compiles_for_the_gpus_of_this_machine_and_the_wheel_for_all_unless_told(
    checkout: Path, wanted: str
):
    mark_as_set_up(checkout)
    (checkout / "ops_dcnv3" / "setup.py").touch()
    python = checkout / ".venv" / "bin" / "python"
    python.parent.mkdir()
    python.write_text('#!/bin/sh\necho "$* ARCHS=$TORCH_CUDA_ARCH_LIST."\n')
    python.chmod(0o755)
    result = make(checkout, "wheel", TORCH_CUDA_ARCH_LIST=wanted)
    assert result.returncode == 0, result.stderr
    archs = dict(re.findall(r"(-e|--wheel-dir) .* ARCHS=(.*)\.$", result.stdout, re.MULTILINE))
    # the last -e installs the backbone, which compiles nothing
    assert archs == {"-e": wanted, "--wheel-dir": wanted}
    assert f"-e ./ops_dcnv3 ARCHS={wanted or 'native'}." in result.stdout


def test_demo_and_test_set_themselves_up(checkout: Path):
    assert planned_steps(checkout, target="demo") == list(STEPS[: STEPS.index("core") + 1])
    assert planned_steps(checkout, target="test") == list(STEPS)
    assert planned_steps(checkout, target="test-fast") == list(STEPS)


@pytest.mark.parametrize("target", ["test", "test-fast"])
@pytest.mark.parametrize("compiler", [True, False])
def test_a_test_run_demands_the_kernels_exactly_where_a_compiler_is(
    checkout: Path, compiler: bool, target: str
):
    mark_as_set_up(checkout, operator="native-sh" if compiler else "reference")
    python = checkout / ".venv" / "bin" / "python"
    python.parent.mkdir()
    python.write_text('#!/bin/sh\necho "$2 REQUIRE=$OPS_DCNV3_REQUIRE_NATIVE."\n')
    python.chmod(0o755)
    for tool in ("clang-format", "codespell"):
        shutil.copy(python, python.parent / tool)
    result = make(checkout, target, f"CXX={'sh' if compiler else 'no-compiler'}")
    assert result.returncode == 0, result.stderr
    assert f"pytest REQUIRE={int(compiler) or ''}." in result.stdout


@pytest.mark.parametrize("target", ["test", "test-fast"])
def test_a_test_run_says_why_it_compiles_no_cuda_kernels(checkout: Path, toolkit: str, target: str):
    note = "note: the CUDA kernels are not compiled: "
    assert f"{note}no nvcc (looked for in" in make(checkout, "--dry-run", target).stdout
    without = make(checkout, "--dry-run", target, CUDA_HOME=toolkit, USE_CUDA="0")
    assert f"{note}USE_CUDA=0" in without.stdout
    assert note not in make(checkout, "--dry-run", target, CUDA_HOME=toolkit).stdout


def pytest_commands(plan: str) -> list[str]:
    """Returns the calls of pytest that ``make --dry-run`` prints, each without what follows it."""
    return [
        line.partition(" || ")[0].removesuffix(" \\")
        for line in plan.splitlines()
        if "-m pytest" in line
    ]


def test_tests_narrows_both_test_targets(checkout: Path):
    narrowed = "TESTS=tests/test_one.py"
    (fast,) = pytest_commands(make(checkout, "--dry-run", "test-fast", narrowed).stdout)
    first, second = pytest_commands(make(checkout, "--dry-run", "test", narrowed).stdout)
    assert all(command.endswith(" tests/test_one.py") for command in (fast, first, second))
    assert '-m "not slow and not trained"' in fast
    assert '-m "not trained"' in first
    assert " -m trained " in second


@pytest.mark.parametrize(
    ("first", "second", "num_parts", "is_right"),
    [
        *((0, 0, 2, True), (0, 5, 2, True), (5, 0, 2, True)),
        *((5, 5, 2, False), (1, 0, 2, False), (0, 1, 2, False), (1, 5, 2, False)),
        *((0, 2, 2, False), (2, 0, 1, False)),
    ],
)
def test_all_tests_are_run_in_two_parts_of_which_one_may_be_empty(
    checkout: Path, first: int, second: int, num_parts: int, is_right: bool
):
    mark_as_set_up(checkout, operator="native-sh")
    python = checkout / ".venv" / "bin" / "python"
    python.parent.mkdir()
    python.write_text(
        f"""#!/bin/sh
case "$*" in
    *"-m not trained"*) echo part; exit {first} ;;
    *"-m trained"*) echo part; exit {second} ;;
esac
"""
    )
    python.chmod(0o755)
    for tool in ("clang-format", "codespell"):
        shutil.copy(python, python.parent / tool)
    result = make(checkout, "test", "CXX=sh")
    assert (result.returncode == 0) == is_right, result.stderr
    assert result.stdout.splitlines().count("part") == num_parts
