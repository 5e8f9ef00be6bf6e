"""The wheel: built from the source distribution, tagged for every Python, tested elsewhere."""

from __future__ import annotations

import json
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
from typing import Any

import pytest
import torch

import ops_dcnv3

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))

from cuda_toolkit import Toolkit, wanted_toolkit  # noqa: E402

TORCH_LIBRARIES = Path(torch.__file__).parent / "lib"
PIP = [sys.executable, "-m", "pip"]
OFFLINE = ["--no-build-isolation", "--no-deps", "--no-index", "--no-cache-dir"]
LARGEST_WHEEL = 8_000_000  # bytes
# What pip is asked for where a PyTorch without CUDA is needed: a requirement or a file.
CPU_TORCH = os.environ.get("CPU_TORCH") or f"torch=={torch.__version__.partition('+')[0]}+cpu"

pytestmark = pytest.mark.slow


def attempt(command: list[str], cwd: Path, **variables: str) -> tuple[int, str]:
    """Exit status and output of a command."""
    dropped = ["PYTHONPATH", "OPS_DCNV3_REQUIRE_NATIVE", "TORCH_CUDA_ARCH_LIST"]
    if os.environ.get("USE_CUDA") != "0":
        dropped.append("USE_CUDA")
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
def toolkit() -> Toolkit | None:
    """What the wheel's CUDA kernels were compiled with; None: this machine cannot, or must not."""
    with pytest.MonkeyPatch.context() as settings:
        settings.delenv("TORCH_CUDA_ARCH_LIST", raising=False)
        return wanted_toolkit()


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
    assert {"ops_dcnv3/_C.abi3.so", "ops_dcnv3/_onnxruntime.abi3.so"} <= package
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
    needed |= {"setup.py", "cuda_toolkit.py", "cuda_objects.py"}
    assert any(n.endswith(".cu") for n in needed) and needed <= names
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


# In a process without a GPU: no warning, kernels that agree with the reference, and a report.
CLEAN_CHECK = """
import json, torch, ops_dcnv3
torch.manual_seed(0)
shapes = [(2, 7, 6, 64), (2, 7, 6, 4 * 18), (2, 7, 6, 4 * 9)]
tensors = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
outputs = [operator(*tensors, groups=4, softmax=True)
           for operator in (ops_dcnv3.dcnv3, ops_dcnv3.dcnv3_reference)]
gradients = [torch.autograd.grad(output.square().sum(), tensors) for output in outputs]
for actual, expected in zip((outputs[0], *gradients[0]), (outputs[1], *gradients[1])):
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)
assert outputs[0].grad_fn.name() != outputs[1].grad_fn.name()  # two implementations, not one
assert not torch.cuda.is_initialized()
info = ops_dcnv3.extension_info()
print(json.dumps({"torch": torch.__version__, "torch_cuda": torch.version.cuda} | info))
"""


def clean_check(python: Path) -> dict[str, Any]:
    """Runs the check in an environment; what it printed."""
    command = [str(python), "-W", "error", "-c", CLEAN_CHECK]
    return json.loads(check(command, python.parent, CUDA_VISIBLE_DEVICES="").splitlines()[-1])


def expect_kernels(found: dict[str, Any], python: Path, toolkit: Toolkit | None) -> None:
    """The installed wheel itself is loaded, with everything that its build could compile."""
    assert found["path"].startswith(str(python.parents[1]))
    assert "cpu" in found["backends"]
    assert tuple(found["cuda_archs"]) == (toolkit.archs if toolkit else ())


def test_the_wheel_works_with_this_pytorch(outside, toolkit):
    found = clean_check(outside)
    assert found["torch"] == torch.__version__
    expect_kernels(found, outside, toolkit)


def test_the_wheel_works_with_a_pytorch_without_cuda(wheel, toolkit, tmp_path):
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / "bin" / "python"
    install = [*PIP, "--python", str(python), "install", "--no-cache-dir", "--quiet"]
    status, printed = attempt([*install, CPU_TORCH, "numpy"], tmp_path)
    if status != 0 and "No matching distribution" in printed:
        pytest.skip(f"pip finds no {CPU_TORCH}; CPU_TORCH=<file or requirement> names another one")
    assert status == 0, printed[-4000:]
    check([*install, *OFFLINE, str(wheel)], tmp_path)
    found = clean_check(python)
    assert found["torch_cuda"] is None
    expect_kernels(found, python, toolkit)


def dynamic_symbols(library: Path, which: str) -> dict[str, str]:
    """The kind of each dynamic symbol, as nm's letter; ``which``: undefined or defined."""
    lines = check(["nm", "-D", f"--{which}-only", str(library)], library.parent).splitlines()
    return {line.split()[-1].partition("@")[0]: line.split()[-2] for line in lines}


def undefined_symbols(library: Path) -> set[str]:
    """Names that a shared library takes from others, without versions."""
    return set(dynamic_symbols(library, "undefined"))


def unstable(symbols: set[str]) -> set[str]:
    """Those of Python, and those of PyTorch beyond its stable C interface.

    C++ names of c10, at and torch change from release to release; C names that start with
    aoti_torch_ or torch_ do not.
    """
    python = {s for s in symbols if re.match(r"_?Py[A-Z_]", s)}
    mangled = {s for s in symbols if s.startswith("_Z") and re.search("3c10|N?2at|5torch", s)}
    plain = {s for s in symbols if re.search("torch|c10|^at_", s) and not s.startswith("_Z")}
    return python | mangled | {s for s in plain if not re.match("(aoti_)?torch_", s)}


@pytest.fixture(scope="module")
def library(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The extension in the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract("ops_dcnv3/_C.abi3.so", tmp_path_factory.mktemp("library")))


def test_the_library_needs_no_symbol_of_python_and_only_stable_ones_of_pytorch(library):
    symbols = undefined_symbols(library)
    assert "torch_library_impl" in symbols and "aoti_torch_library_init_impl" in symbols
    assert unstable(symbols) == set()


def test_the_library_for_onnx_runtime_needs_neither_pytorch_nor_python_nor_onnx_runtime(
    wheel, tmp_path
):
    with zipfile.ZipFile(wheel) as archive:
        library = Path(archive.extract("ops_dcnv3/_onnxruntime.abi3.so", tmp_path))
    strangers = re.compile("torch|c10|cuda|Ort|_?Py[A-Z_]")
    assert not {name for name in undefined_symbols(library) if strangers.search(name)}
    assert "RegisterCustomOps" in dynamic_symbols(library, "defined")


def test_what_the_library_demands_of_pytorch_is_in_the_half_without_cuda(library, toolkit):
    demanded = {n for n, kind in dynamic_symbols(library, "undefined").items() if kind == "U"}
    demanded = {n for n in demanded if re.search("torch|c10|cuda", n)}
    halves = ("libtorch_cpu.so", "libc10.so")
    offered = [dynamic_symbols(TORCH_LIBRARIES / name, "defined") for name in halves]
    assert "torch_library_impl" in demanded
    assert demanded - set().union(*offered) == set()
    stream = dynamic_symbols(library, "undefined").get("aoti_torch_get_current_cuda_stream")
    assert stream == ("w" if toolkit else None)


def test_the_cuda_runtime_inside_the_library_is_not_seen_by_others(library, toolkit):
    defined = set(dynamic_symbols(library, "defined"))
    assert ("ops_dcnv3_register_cuda" in defined) == (toolkit is not None)
    assert not {n for n in defined if re.match("cuda[A-Z]|__cuda", n)}


def test_a_library_that_needs_unstable_symbols_would_be_noticed():
    """PyTorch's own Python extension needs both kinds."""
    found = unstable(undefined_symbols(TORCH_LIBRARIES / "libtorch_python.so"))
    assert any(s.startswith("Py") for s in found)
    assert any("3c10" in s for s in found) and any("2at" in s for s in found)


def test_without_nvcc_the_wheel_has_the_cpu_kernels(tmp_path):
    copy = copy_sources(tmp_path)
    build = [*PIP, "wheel", *OFFLINE, "-v", "-w", str(tmp_path), str(copy)]
    printed = check(build, tmp_path, CUDA_HOME="/no/toolkit", USE_CUDA="auto")
    assert "building WITHOUT the CUDA kernels: no nvcc: CUDA_HOME is '/no/toolkit'" in printed
    (archive,) = tmp_path.glob("*-abi3-*.whl")
    command = [sys.executable, str(PROJECT / "describe_wheel.py"), str(archive)]
    described = check(command, tmp_path)
    assert re.fullmatch(rf"{archive.name}: 0\.\d MB, CPU kernels .*, no CUDA kernels\n", described)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"USE_CUDA": "1", "CUDA_HOME": "/no/toolkit"}, "USE_CUDA=1, but no nvcc: CUDA_HOME is"),
        ({"USE_CUDA": "1", "CXX": "no-such-compiler"}, "USE_CUDA=1, but no C++ compiler: CXX is"),
        ({"USE_CUDA": "on"}, "expected USE_CUDA = auto, 0 or 1, got 'on'"),
    ],
)
def test_cuda_kernels_that_are_demanded_and_cannot_be_built_are_an_error(
    tmp_path, settings, message
):
    build = [*PIP, "wheel", *OFFLINE, "-w", str(tmp_path), str(copy_sources(tmp_path))]
    status, printed = attempt(build, tmp_path, **settings)
    assert status != 0 and f"ops_dcnv3: {message}" in printed
    assert not list(tmp_path.glob("*.whl"))


@pytest.mark.parametrize("jobs", ["0", "many"])
def test_a_wrong_number_of_jobs_is_an_error_that_names_it(tmp_path, jobs):
    build = [*PIP, "wheel", *OFFLINE, "-w", str(tmp_path), str(copy_sources(tmp_path))]
    status, printed = attempt(build, tmp_path, MAX_JOBS=jobs, USE_CUDA="0")
    assert status != 0 and f"ops_dcnv3: expected MAX_JOBS >= 1, got '{jobs}'" in printed


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
