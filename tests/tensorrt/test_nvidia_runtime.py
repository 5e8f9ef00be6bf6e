"""Which of NVIDIA's libraries is taken, and the folder of the same name that must not be."""

from __future__ import annotations

import importlib
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from nvidia_runtime import HOW_TO_BUILD, Runtime, choose_runtime
from tests.tensorrt.stand_in_nvidia import Severity, module_of

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `import` finds of NVIDIA's modules; an exception is raised."""
    modules: dict[str, Any] = {}
    real = importlib.import_module

    def find(name: str, package: str | None = None) -> Any:
        if not name.startswith("tensorrt"):
            return real(name, package)
        if name not in modules:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        if isinstance(modules[name], Exception):
            raise modules[name]
        return modules[name]

    monkeypatch.setattr(importlib, "import_module", find)
    return modules


def test_tensorrt_is_taken_before_rtx_and_either_by_name(installed: dict[str, Any]):
    installed["tensorrt"], installed["tensorrt_rtx"] = module_of("10.16.1"), module_of("1.7.1")
    assert choose_runtime().name == "tensorrt"
    assert choose_runtime("tensorrt_rtx").title == "TensorRT for RTX 1.7.1"
    del installed["tensorrt"]
    assert choose_runtime().name == "tensorrt_rtx"


def test_without_any_the_commands_that_install_them_are_named(installed: dict[str, Any]):
    with pytest.raises(ImportError) as caught:
        choose_runtime()
    assert "pip install tensorrt;" in str(caught.value)
    assert "pip install tensorrt-rtx" in str(caught.value)


def test_an_empty_package_is_no_installation(installed: dict[str, Any]):
    installed["tensorrt"] = types.ModuleType("tensorrt")
    with pytest.raises(ImportError, match="pip install tensorrt"):
        choose_runtime("tensorrt")


def test_a_broken_installation_says_what_is_wrong(installed: dict[str, Any]):
    installed["tensorrt"] = ImportError("libnvinfer.so.11: cannot open shared object file")
    with pytest.raises(ImportError, match="tensorrt cannot be imported .libnvinfer.so.11"):
        choose_runtime("tensorrt")


def test_an_old_tensorrt_is_refused(installed: dict[str, Any]):
    installed["tensorrt"] = module_of("8.6.1")
    with pytest.raises(ValueError, match="expected TensorRT >= 10, got 8.6.1"):
        choose_runtime()


def test_the_folder_tensorrt_hides_no_installed_package_and_passes_for_none(tmp_path: Path):
    """From the root, as `python -m` and notebooks have it, and with NVIDIA's package behind it."""
    code = "import tensorrt; print(getattr(tensorrt, '__version__', None))"

    def version(*folders: Path) -> str:
        path = f"sys.path[:0] = {[str(folder) for folder in folders]!r}"
        command = [sys.executable, "-S", "-c", f"import sys; {path}; {code}"]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip()

    (tmp_path / "tensorrt").mkdir()
    (tmp_path / "tensorrt" / "__init__.py").write_text("__version__ = '11.1.0'\n")
    assert version(ROOT, tmp_path) == "11.1.0"
    assert version(ROOT) == "None"
    assert not (ROOT / "tensorrt" / "__init__.py").exists()


def test_a_logger_keeps_errors_and_warnings_on_one_line_and_drops_the_rest():
    logger = Runtime("tensorrt", module_of()).make_logger()
    logger.log(Severity.WARNING, "a warning")
    logger.log(Severity.ERROR, "first\n  line")
    logger.log(Severity.INTERNAL_ERROR, "second")
    logger.log(Severity.INFO, "news")
    assert logger.errors == ["first line", "second"]
    assert logger.warnings == ["a warning"]


def test_a_plugin_that_is_not_there_is_refused_with_the_way_to_build_it(tmp_path: Path):
    with pytest.raises(FileNotFoundError) as caught:
        Runtime("tensorrt", module_of()).load_plugin(tmp_path / "libdcnv3_tensorrt.so")
    assert HOW_TO_BUILD in str(caught.value)


def test_a_plugin_that_is_no_library_is_refused_in_the_linkers_words(tmp_path: Path):
    (tmp_path / "lib.so").write_text("no library")
    with pytest.raises(OSError, match="expected a library that can be loaded, got .*lib.so"):
        Runtime("tensorrt", module_of()).load_plugin(tmp_path / "lib.so")


def a_library() -> Path:
    """Any that is loaded already: this process's C library."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return next(Path(line.split()[-1]) for line in lines if "libc.so" in line)


def test_a_library_without_plugins_is_refused():
    module = module_of(load_library=lambda path: None)
    with pytest.raises(ValueError, match="expected a library with getCreators"):
        Runtime("tensorrt", module).load_plugin(a_library())


def test_a_library_of_plugins_is_handed_to_the_registry():
    loaded: list[str] = []
    module = module_of(load_library=lambda path: loaded.append(path) or object())
    Runtime("tensorrt", module).load_plugin(a_library())
    assert loaded == [str(a_library().resolve())]


def test_rtx_takes_no_plugins(tmp_path: Path):
    with pytest.raises(ValueError, match="which takes no plugins: export it with --operator"):
        Runtime("tensorrt_rtx", module_of("1.7.1")).load_plugin(tmp_path)
