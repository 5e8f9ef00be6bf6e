"""The names of ``import internimage``, which imports nothing before they are asked for."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import internimage

ROOT = Path(__file__).resolve().parents[2]

WITHOUT_TORCH = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "safetensors", "huggingface_hub", "ops_dcnv3"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
import internimage
from internimage import Preprocessing, __version__
assert Preprocessing().image_size == 224
assert "create_model" in dir(internimage)
try:
    internimage.create_model
except ModuleNotFoundError as error:
    print(__version__, error.name)

from internimage.cli import main
print(main(["run", "no.onnx", "no.png"]), main(["list"]))

from internimage.script import run_script
print(run_script("script", lambda: int("x"), memory_advice=""))
"""


@pytest.mark.parametrize("name", internimage.__all__)
def test_a_public_name_is_what_its_module_defines(name: str):
    value = getattr(internimage, name)
    module = inspect.getmodule(value)
    assert module is not None
    assert module.__name__.startswith("internimage.")
    assert getattr(module, name) is value


def test_every_public_name_has_one_home_and_nothing_else_has_one():
    names = [name for names in internimage._HOMES.values() for name in names]
    assert sorted(names) == sorted(internimage.__all__)


def test_a_misspelt_name_is_an_attribute_error_as_of_any_module():
    with pytest.raises(AttributeError, match="module 'internimage' has no attribute 'create_mode'"):
        internimage.create_mode  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'InternImages'"):
        from internimage import InternImages  # type: ignore[attr-defined]  # noqa: F401


def test_the_module_lists_all_public_names():
    assert set(internimage.__all__) <= set(dir(internimage))


def test_without_pytorch_the_package_is_imported_and_what_needs_it_says_so():
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [internimage.__version__, "torch", "2", "2", "2"]
    run, others, script = done.stderr.splitlines()
    assert run.startswith("internimage run: read_property: expected an ONNX file, got none at")
    assert others.startswith("internimage: expected PyTorch, which all but `internimage run` needs")
    assert script.startswith("script: error: invalid literal for int()")
