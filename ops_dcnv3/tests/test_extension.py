"""Loading of the compiled kernels: chosen, forced, absent, damaged; each in a new process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from dcnv3_cases import Case, assert_all_close, run
from environments import environment

import ops_dcnv3
from ops_dcnv3 import extension

PACKAGE = Path(ops_dcnv3.__file__).parent
TESTS = Path(__file__).parent
CASE = Case(height=6, width=7, group_channels=16, softmax=True)
REPORT = """
import json, sys, warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import ops_dcnv3
    import torch
    sys.path.insert(0, sys.argv[1])
    from dcnv3_cases import Case, run
    case = Case(height=6, width=7, group_channels=16, softmax=True)
    for _ in range(2):
        results = run(ops_dcnv3.dcnv3, case.tensors(), case.grad_output(), case.settings)
torch.save(results, sys.argv[2])
texts = [str(w.message) for w in caught if "ops_dcnv3" in str(w.message)]
info = ops_dcnv3.extension_info()
print(json.dumps({"warnings": texts, "info": info, "file": ops_dcnv3.__file__}))
"""


def start(tmp_path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `REPORT` in a new process with these environment variables."""
    command = [sys.executable, "-c", REPORT, str(TESTS), str(tmp_path / "results.pt")]
    env = environment(**variables)
    return subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True)


def report(tmp_path: Path, **variables: str) -> dict:
    """What `REPORT` printed, after a check that its numbers are right."""
    done = start(tmp_path, **variables)
    assert done.returncode == 0, done.stderr
    results = torch.load(tmp_path / "results.pt", weights_only=True)
    expected = run(ops_dcnv3.dcnv3_reference, CASE.tensors(), CASE.grad_output(), CASE.settings)
    assert_all_close(results, expected, tolerance=1e-10)
    return json.loads(done.stdout)


@pytest.fixture
def package_without_extension(tmp_path: Path) -> Path:
    """A copy of the Python files alone; its parent goes on the path, before the installed one."""
    copy = tmp_path / "copy" / "ops_dcnv3"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("*.so", "__pycache__", "csrc"))
    return copy


def test_extension_info_tells_what_runs_and_why_the_rest_does_not():
    info = ops_dcnv3.extension_info()
    assert info["version"] == ops_dcnv3.__version__
    assert info["backends"][-1] == "reference"
    assert set(info["backends"]).isdisjoint(info["missing"])
    assert all(reason for reason in info["missing"].values())
    if "cpu" in info["backends"]:
        assert info["cpu_level"] in info["cpu_levels"]
        assert Path(info["path"]).is_file()
    else:
        assert info["cpu_levels"] == () and info["cpu_level"] is None


@pytest.mark.slow
def test_the_best_level_is_chosen_by_default(compiled, tmp_path):
    info = report(tmp_path)["info"]
    assert info["cpu_level"] == info["cpu_levels"][-1]


@pytest.mark.slow
def test_the_reference_can_be_forced_and_does_not_warn_of_what_was_asked_for(tmp_path):
    told = report(tmp_path, OPS_DCNV3_BACKEND="reference")
    assert told["info"]["backends"] == ["reference"]
    assert "OPS_DCNV3_BACKEND=reference" in told["info"]["missing"]["cpu"]
    assert told["warnings"] == []


@pytest.mark.slow
def test_the_compiled_kernels_can_be_forced(compiled, tmp_path):
    told = report(tmp_path, OPS_DCNV3_BACKEND="native")
    assert "cpu" in told["info"]["backends"]
    assert told["warnings"] == []


@pytest.mark.slow
@pytest.mark.parametrize("level", ["v2", "v3", "v4"])
def test_a_level_can_be_forced(level, tmp_path):
    if level not in extension.cpu_levels():
        pytest.skip(f"levels of this machine: {extension.cpu_levels()}")
    assert report(tmp_path, OPS_DCNV3_CPU_LEVEL=level)["info"]["cpu_level"] == level


@pytest.mark.slow
def test_without_the_extension_there_is_one_warning_and_the_same_numbers(
    package_without_extension, tmp_path
):
    told = report(tmp_path, PYTHONPATH=str(package_without_extension.parent))
    assert Path(told["file"]).parent == package_without_extension
    assert told["info"]["backends"] == ["reference"]
    (warning,) = told["warnings"]
    assert "without its compiled extension" in warning and "pip install" in warning
    assert "CPU tensors take the PyTorch reference" in warning  # those of a GPU may have Triton


@pytest.mark.slow
def test_a_damaged_extension_gives_one_warning_and_the_same_numbers(
    package_without_extension, tmp_path
):
    (package_without_extension / "_C.abi3.so").write_bytes(b"not a library")
    told = report(tmp_path, PYTHONPATH=str(package_without_extension.parent))
    assert told["info"]["backends"] == ["reference"]
    (warning,) = told["warnings"]
    assert "does not load" in warning and "_C.abi3.so" in warning


@pytest.mark.slow
@pytest.mark.parametrize("code", ["int ops_dcnv3_interface() { return -1; }", "int unrelated;"])
def test_an_extension_of_another_version_fails_on_import(package_without_extension, tmp_path, code):
    """It would be called with arguments that it does not expect."""
    compiler = os.environ.get("CXX", "c++").split()[0]
    if shutil.which(compiler) is None:
        pytest.skip(f"no C++ compiler: {compiler!r}")
    source = tmp_path / "other.c"
    source.write_text(code)
    library = package_without_extension / "_C.abi3.so"
    command = [compiler, "-shared", "-fPIC", "-x", "c", str(source), "-o", str(library)]
    subprocess.run(command, check=True)
    done = start(tmp_path, PYTHONPATH=str(package_without_extension.parent))
    assert done.returncode != 0
    assert "ImportError: ops_dcnv3: " in done.stderr
    assert str(library) in done.stderr and "pip install" in done.stderr


@pytest.mark.slow
def test_forcing_kernels_that_are_not_there_fails_on_import(package_without_extension, tmp_path):
    path = str(package_without_extension.parent)
    done = start(tmp_path, PYTHONPATH=path, OPS_DCNV3_BACKEND="native")
    assert done.returncode != 0
    assert "ImportError: ops_dcnv3: OPS_DCNV3_BACKEND=native, but" in done.stderr
    assert "pip install" in done.stderr


@pytest.mark.slow
def test_an_unknown_backend_fails_on_import(tmp_path):
    done = start(tmp_path, OPS_DCNV3_BACKEND="gpu")
    assert done.returncode != 0
    assert "ValueError: ops_dcnv3: expected OPS_DCNV3_BACKEND in" in done.stderr
    assert "got 'gpu'" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["auto", "native", "reference"])
def test_an_unknown_level_fails_whatever_the_backend(tmp_path, backend):
    done = start(tmp_path, OPS_DCNV3_BACKEND=backend, OPS_DCNV3_CPU_LEVEL="v9")
    assert done.returncode != 0
    assert "ValueError: ops_dcnv3: expected OPS_DCNV3_CPU_LEVEL in" in done.stderr
    assert "got 'v9'" in done.stderr


@pytest.mark.slow
def test_a_level_without_effect_warns(package_without_extension, tmp_path):
    """Forcing the reference, or having no kernels, leaves nothing for the level to choose."""
    told = report(tmp_path, OPS_DCNV3_BACKEND="reference", OPS_DCNV3_CPU_LEVEL="v3")
    (warning,) = told["warnings"]
    assert "OPS_DCNV3_CPU_LEVEL" in warning and "no effect" in warning
    path = str(package_without_extension.parent)
    warnings = report(tmp_path, PYTHONPATH=path, OPS_DCNV3_CPU_LEVEL="v3")["warnings"]
    assert any("OPS_DCNV3_CPU_LEVEL" in text for text in warnings)


@pytest.mark.slow
def test_empty_variables_count_as_unset(tmp_path):
    assert report(tmp_path, OPS_DCNV3_BACKEND="", OPS_DCNV3_CPU_LEVEL="") == report(tmp_path)


@pytest.mark.slow
def test_the_fallback_passes_the_tests_of_the_compiled_kernels():
    names = "oracle hostile gradients layouts modules functions opcheck pytorch"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "--import-mode=importlib", "-m", "not slow"),
            *(str(TESTS / f"test_{name}.py") for name in names.split()),
        ],
        env=environment(OPS_DCNV3_BACKEND="reference"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert "passed" in done.stdout
