"""Both wheels together, built from the sources and used outside of the checkout.

What concerns the operator's wheel alone is tested in ops_dcnv3/tests/test_packaging.py.

The fresh environment sees the PyTorch of this one (and the small libraries beside it) but not the
editable installs of the checkout: a path line in a ``.pth`` file does not run other ``.pth`` files.
"""

from __future__ import annotations

import email.message
import email.parser
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.slow


def run(*command: str | Path, **options) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end; its output is in the message when it fails."""
    environment = os.environ | options.pop("environment", {})
    result = subprocess.run(
        [str(part) for part in command],
        env=environment,
        capture_output=True,
        text=True,
        **options,
    )
    if options.get("check", True) and result.returncode:
        pytest.fail(f"{command}\n{result.stdout}\n{result.stderr}")
    return result


def copy_of_sources(destination: Path) -> Path:
    """What a build needs, without what earlier builds left in the checkout."""
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        destination.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, destination / name)
    ignored = shutil.ignore_patterns("*.so", "*.egg-info", "build", "dist", "__pycache__", "tests")
    for name in ("internimage", "ops_dcnv3"):
        shutil.copytree(ROOT / name, destination / name, ignore=ignored)
    return destination


def build_wheel(project: Path, destination: Path) -> Path:
    run(
        *(sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps"),
        *("--wheel-dir", destination, project),
        environment={"USE_CUDA": "0"},  # the operator's own tests build it with all its kernels
    )
    (wheel,) = destination.iterdir()
    return wheel


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_of_sources(tmp_path_factory.mktemp("sources") / "checkout")


@pytest.fixture(scope="module")
def operator_wheel(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(sources / "ops_dcnv3", tmp_path_factory.mktemp("operator"))


@pytest.fixture(scope="module")
def backbone_wheel(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(sources, tmp_path_factory.mktemp("backbone"))


@pytest.fixture(scope="module")
def environment(
    operator_wheel: Path, backbone_wheel: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The ``bin`` folder of a virtual environment in which both wheels are installed."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    run(
        *(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index"),
        *(operator_wheel, backbone_wheel),
    )
    # After the installation, so that pip saw an empty environment.
    (site_packages,) = folder.glob("lib/python*/site-packages")
    (site_packages / "pytorch.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


def metadata(wheel: Path) -> email.message.Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return email.parser.Parser().parsestr(archive.read(name).decode())


def contents(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def has_compiler() -> bool:
    return shutil.which(os.environ.get("CXX", "c++").split()[0]) is not None


def test_the_backbone_is_a_pure_wheel_with_the_version_of_the_source(backbone_wheel: Path):
    init = (ROOT / "internimage" / "__init__.py").read_text(encoding="utf-8")
    (version,) = re.findall(r'^__version__ = "(.+)"$', init, re.MULTILINE)
    assert backbone_wheel.name == f"internimage-{version}-py3-none-any.whl"
    assert metadata(backbone_wheel)["Version"] == version
    assert metadata(backbone_wheel)["License"] == "MIT"
    assert [name for name in contents(backbone_wheel) if name.endswith("licenses/LICENSE")]


def test_the_backbone_wheel_holds_the_package_and_nothing_else(backbone_wheel: Path):
    names = contents(backbone_wheel)
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "internimage").rglob("*.py")}
    assert modules <= names
    assert "internimage/py.typed" in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"internimage"}


def test_the_backbone_wheel_asks_for_the_light_core_only(backbone_wheel: Path):
    required = metadata(backbone_wheel).get_all("Requires-Dist") or []
    core = {re.match(r"[\w-]+", line).group() for line in required if "extra ==" not in line}
    assert {name.replace("-", "_") for name in core} == {
        *("torch", "ops_dcnv3", "huggingface_hub", "numpy", "pillow", "safetensors")
    }
    assert metadata(backbone_wheel)["Requires-Python"] == ">=3.10"
    extras = set(metadata(backbone_wheel).get_all("Provides-Extra"))
    assert extras == {"train", "openmmlab", "deepspeed", "export", "dev"}


def test_the_operator_wheel_carries_its_licence_and_needs_pytorch_only(operator_wheel: Path):
    assert [name for name in contents(operator_wheel) if name.endswith("licenses/LICENSE")]
    assert metadata(operator_wheel)["License"] == "MIT"
    assert metadata(operator_wheel)["Requires-Python"] == ">=3.10"
    assert metadata(operator_wheel).get_all("Requires-Dist") == ["torch>=2.10"]


def test_the_installed_wheels_run_outside_of_the_checkout(environment: Path, tmp_path: Path):
    code = """
import internimage, ops_dcnv3, torch
print(internimage.__file__, ops_dcnv3.__file__, sep="\\n")
print(ops_dcnv3.extension_info()["backends"][0])
model = internimage.create_model("internimage_n", num_classes=10).eval()
print(tuple(model(torch.zeros(1, 3, 32, 32)).shape))
"""
    result = run(environment / "python", "-c", code, cwd=tmp_path)
    backbone, operator, backend, shape = result.stdout.splitlines()
    assert Path(backbone).is_relative_to(environment.parent)
    assert Path(operator).is_relative_to(environment.parent)
    assert backend == ("cpu" if has_compiler() else "reference")
    assert shape == "(1, 10)"


def test_the_console_script_is_installed_and_lists_the_models(environment: Path, tmp_path: Path):
    listed = run(environment / "internimage", "list", cwd=tmp_path).stdout
    assert "internimage_t_1k_224" in listed


def install_without_compiler(
    sources: Path, target: Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Installs the operator into ``target`` on a machine whose compiler cannot be found."""
    return subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--no-build-isolation", "--no-deps"),
            *("--target", str(target), str(sources / "ops_dcnv3")),
        ],
        env=os.environ
        | {"OPS_DCNV3_REQUIRE_NATIVE": "", "CC": "/no/compiler", "CXX": "/no/compiler"}
        | environment,
        capture_output=True,
        text=True,
    )


def test_without_a_compiler_the_operator_installs_warns_once_and_works(
    tmp_path: Path, sources: Path
):
    result = install_without_compiler(sources, tmp_path / "site")
    assert result.returncode == 0, result.stderr
    code = """
import ops_dcnv3, torch
assert ops_dcnv3.__file__.startswith("SITE"), ops_dcnv3.__file__
assert ops_dcnv3.extension_info()["backends"] == ("reference",)
layer = ops_dcnv3.DCNv3(channels=8, group=2)
for _ in range(3):
    layer(torch.randn(1, 5, 4, 8)).sum().backward()
assert layer.input_proj.weight.grad.abs().sum() > 0
""".replace("SITE", str(tmp_path))
    used = run(
        *(sys.executable, "-W", "always", "-c", code),
        cwd=tmp_path,
        environment={"PYTHONPATH": str(tmp_path / "site"), "OPS_DCNV3_BACKEND": "auto"},
    )
    assert used.stderr.count("Warning") == 1
    assert "RuntimeWarning: ops_dcnv3: the package was installed without" in used.stderr


def test_without_a_compiler_an_install_that_must_have_kernels_fails(tmp_path: Path, sources: Path):
    result = install_without_compiler(sources, tmp_path / "site", OPS_DCNV3_REQUIRE_NATIVE="1")
    assert result.returncode != 0
    assert "OPS_DCNV3_REQUIRE_NATIVE" in result.stdout + result.stderr
