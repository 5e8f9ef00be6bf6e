"""The wheel: built from the source distribution, tagged for every Python, tested elsewhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
import torch

import ops_dcnv3

PROJECT = Path(__file__).resolve().parents[1]
TORCH_LIBRARIES = Path(torch.__file__).parent / "lib"
PIP = [sys.executable, "-m", "pip"]
OFFLINE = ["--no-build-isolation", "--no-deps", "--no-index", "--no-cache-dir"]
LARGEST_WHEEL = 5 * 2**20  # bytes

pytestmark = pytest.mark.slow


def attempt(command: list[str], cwd: Path, **variables: str) -> tuple[int, str]:
    """Exit status and output of a command."""
    dropped = ("PYTHONPATH", "OPS_DCNV3_REQUIRE_NATIVE")
    kept = {k: v for k, v in os.environ.items() if k not in dropped}
    done = subprocess.run(
        command,
        cwd=cwd,
        env=kept | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.returncode, done.stdout


def check(command: list[str], cwd: Path, **variables: str) -> str:
    """Run a command that must succeed; its output."""
    status, printed = attempt(command, cwd, **variables)
    assert status == 0, f"{command}\n{printed[-4000:]}"
    return printed


def copy_sources(folder: Path) -> Path:
    """A copy of the project without anything built, so that the checkout stays clean."""
    copy = folder / "ops_dcnv3"
    ignored = shutil.ignore_patterns("*.so", "build", "dist", "*.egg-info", "__pycache__")
    shutil.copytree(PROJECT, copy, ignore=ignored)
    return copy


def make_environment(folder: Path) -> Path:
    """The Python of a fresh environment that sees this one's PyTorch but not its editables."""
    venv.create(folder / "venv", with_pip=False)
    python = folder / "venv" / "bin" / "python"
    code = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    site = Path(check([str(python), "-c", code], folder).strip())
    # A path file inside the environment: the editable installs of this one are not seen through it.
    (site / "pytorch.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return python


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, built from a copy."""
    copy = copy_sources(tmp_path_factory.mktemp("sdist"))
    code = "from setuptools import build_meta; print(build_meta.build_sdist('dist'))"
    check([sys.executable, "-c", code], copy)
    (archive,) = (copy / "dist").glob("*.tar.gz")
    return archive


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source distribution alone."""
    target = tmp_path_factory.mktemp("wheel")
    check([*PIP, "wheel", *OFFLINE, "-w", str(target), str(sdist)], target)
    (archive,) = target.glob("*.whl")
    return archive


@pytest.fixture(scope="module")
def outside(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a fresh environment that has the wheel."""
    folder = tmp_path_factory.mktemp("outside")
    python = make_environment(folder)
    check([*PIP, "--python", str(python), "install", *OFFLINE, str(wheel)], folder)
    return python


def test_the_wheel_is_tagged_for_every_python_from_3_10(wheel):
    pattern = rf"ops_dcnv3-{re.escape(ops_dcnv3.__version__)}-cp310-abi3-\w+\.whl"
    assert re.fullmatch(pattern, wheel.name), wheel.name
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (n for n in archive.namelist() if n.endswith(".dist-info/WHEEL"))
        text = archive.read(metadata).decode()
    assert "Root-Is-Purelib: false" in text
    assert "Tag: cp310-abi3-" in text


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    assert wheel.stat().st_size < LARGEST_WHEEL
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    package = {n for n in names if ".dist-info/" not in n}
    assert "ops_dcnv3/_C.abi3.so" in package
    assert "ops_dcnv3/py.typed" in package
    sources = {f"ops_dcnv3/{p.name}" for p in (PROJECT / "src" / "ops_dcnv3").glob("*.py")}
    assert sources <= package
    strangers = {n for n in package if not n.endswith((".py", ".so", "py.typed", ".h", ".cuh"))}
    assert not strangers
    assert all(n.startswith("ops_dcnv3/") for n in package)
    assert not any("test" in n or "benchmark" in n for n in package)


def test_the_source_distribution_holds_all_sources(sdist):
    with tarfile.open(sdist) as archive:
        names = {n.partition("/")[2] for n in archive.getnames()}
    csrc = PROJECT / "src" / "ops_dcnv3" / "csrc"
    needed = {str(p.relative_to(PROJECT)) for p in csrc.rglob("*") if p.is_file()}
    assert needed and needed <= names
    assert not any(n.endswith((".so", ".o")) for n in names)


def test_the_installed_wheel_is_used_and_complete(outside):
    code = "import ops_dcnv3; print(ops_dcnv3.__file__); print(ops_dcnv3.extension_info()['path'])"
    lines = check([str(outside), "-W", "error", "-c", code], outside.parent).split()
    root = str(outside.parents[1])
    assert all(line.startswith(root) for line in lines), lines


def test_the_installed_wheel_passes_the_tests_away_from_the_checkout(outside, tmp_path):
    ignored = shutil.ignore_patterns("__pycache__", "test_packaging.py", "sanitize")
    shutil.copytree(PROJECT / "tests", tmp_path / "tests", ignore=ignored)
    files = [f"tests/test_{name}.py" for name in ("oracle", "native", "errors", "modules")]
    options = ["-q", "--import-mode=importlib", "-p", "no:cacheprovider", "-m", "not slow"]
    command = [str(outside), "-m", "pytest", *options, *files]
    printed = check(command, tmp_path, OPS_DCNV3_REQUIRE_NATIVE="1")
    assert "passed" in printed and "skipped" not in printed


def undefined_symbols(library: Path) -> set[str]:
    """Names that a shared library takes from others, without versions."""
    lines = check(["nm", "-D", "--undefined-only", str(library)], library.parent).splitlines()
    return {line.split()[-1].partition("@")[0] for line in lines}


def unstable(symbols: set[str]) -> set[str]:
    """Those of Python, and those of PyTorch beyond its stable C interface.

    C++ names of c10, at and torch change from release to release; C names that start with
    aoti_torch_ or torch_ do not.
    """
    python = {s for s in symbols if re.match(r"_?Py[A-Z_]", s)}
    mangled = {s for s in symbols if s.startswith("_Z") and re.search("3c10|N?2at|5torch", s)}
    plain = {s for s in symbols if re.search("torch|c10|^at_", s) and not s.startswith("_Z")}
    return python | mangled | {s for s in plain if not re.match("(aoti_)?torch_", s)}


def test_the_library_needs_no_symbol_of_python_and_only_stable_ones_of_pytorch(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        library = Path(archive.extract("ops_dcnv3/_C.abi3.so", tmp_path))
    symbols = undefined_symbols(library)
    assert "torch_library_impl" in symbols and "aoti_torch_library_init_impl" in symbols
    assert unstable(symbols) == set()


def test_a_library_that_needs_unstable_symbols_would_be_noticed():
    """PyTorch's own Python extension needs both kinds."""
    found = unstable(undefined_symbols(TORCH_LIBRARIES / "libtorch_python.so"))
    assert any(s.startswith("Py") for s in found)
    assert any("3c10" in s for s in found) and any("2at" in s for s in found)


@pytest.mark.parametrize("compiler", ["/bin/false", "no-such-compiler"])
def test_with_a_compiler_that_fails_the_wheel_is_pure_python(tmp_path, compiler):
    copy = copy_sources(tmp_path)
    check([*PIP, "wheel", *OFFLINE, "-w", str(tmp_path), str(copy)], tmp_path, CXX=compiler)
    (archive,) = tmp_path.glob("*.whl")
    assert archive.name == f"ops_dcnv3-{ops_dcnv3.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(archive) as wheel:
        assert not any(n.endswith(".so") for n in wheel.namelist())


@pytest.mark.parametrize("compiler", ["/bin/false", "no-such-compiler"])
def test_with_a_compiler_that_fails_an_editable_install_runs_on_the_reference(tmp_path, compiler):
    copy, python = copy_sources(tmp_path), make_environment(tmp_path)
    install = [*PIP, "--python", str(python), "install", *OFFLINE, "-e", str(copy)]
    check(install, tmp_path, CXX=compiler)
    code = "import ops_dcnv3; print(ops_dcnv3.__file__, ops_dcnv3.extension_info()['backends'])"
    printed = check([str(python), "-c", code], tmp_path)
    assert f"{copy / 'src/ops_dcnv3/__init__.py'} ('reference',)" in printed
    assert "RuntimeWarning: ops_dcnv3: the package was installed without its compiled" in printed


@pytest.mark.parametrize("compiler", ["/bin/false", "no-such-compiler"])
@pytest.mark.parametrize("command", [["wheel"], ["install", "-e"]], ids=" ".join)
def test_where_kernels_are_required_a_compiler_that_fails_is_an_error(tmp_path, compiler, command):
    copy, python = copy_sources(tmp_path), make_environment(tmp_path)
    build = [*PIP, "--python", str(python), command[0], *OFFLINE, *command[1:], str(copy)]
    variables = {"CXX": compiler, "OPS_DCNV3_REQUIRE_NATIVE": "1"}
    status, printed = attempt(build, tmp_path, **variables)
    assert status != 0
    assert compiler in printed
    assert not list(tmp_path.rglob("*.whl")) and not list(tmp_path.rglob("*.so"))
