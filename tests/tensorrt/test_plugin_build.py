"""The plugin's build by CMake and nvcc, and a real registry of TensorRT that loads the result."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tensorrt.node_cases import Node
from tests.tensorrt.plugin_builds import build_plugin, configure, tensorrt_folder

SESSION = Path(__file__).with_name("registry_session.py")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_plugin(tmp_path_factory.mktemp("build"))


@pytest.mark.slow
def test_the_library_exports_what_tensorrt_looks_for_and_links_nothing_of_it(library: Path):
    exported = subprocess.run(
        ["nm", "--dynamic", "--defined-only", str(library)], capture_output=True, text=True
    ).stdout
    names = {line.split()[-1] for line in exported.splitlines()}
    assert names == {"getCreators", "setLoggerFinder", "dcnv3_forward", "dcnv3_check"}
    linked = subprocess.run(["ldd", str(library)], capture_output=True, text=True).stdout
    assert "nvinfer" not in linked
    assert "cudart" not in linked


@pytest.mark.slow
@pytest.mark.parametrize("module", ["tensorrt_lean", "tensorrt_rtx"])
def test_a_real_registry_loads_the_library_and_makes_plugins(library: Path, module: str):
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed: pip install {module.replace('_', '-')}")
    done = subprocess.run(
        [sys.executable, str(SESSION), module, str(library)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert set(found["creators"]) == {"::DCNv3 1", "::DCNv3Packed 1", "::TRTDCNv3 1"}
    assert set(found["creators"]["::DCNv3Packed 1"]) == set(Node().attributes)
    assert found["core"] == ["DCNv3Packed", "1", ""]
    assert found["outputs"] == 1
    assert found["runtime"] == "PLUGIN_V3ONE_RUNTIME"
    assert found["refused"]
    assert found["read back"]
    assert found["left"] == []


def headers_of(folder: Path, major: int) -> Path:
    (folder / "include").mkdir(parents=True)
    (folder / "include" / "NvInferRuntime.h").touch()
    (folder / "include" / "NvInferVersion.h").write_text(f"#define NV_TENSORRT_MAJOR {major} //\n")
    return folder


def test_without_a_folder_of_tensorrt_the_build_says_what_to_give(tmp_path: Path):
    done = configure(tmp_path / "build")
    assert done.returncode != 0
    assert "Expected -DTENSORRT_DIR=<folder of TensorRT>, got none" in done.stderr


def test_a_folder_without_headers_is_named(tmp_path: Path):
    done = configure(tmp_path / "build", TENSORRT_DIR=str(tmp_path))
    assert done.returncode != 0
    message = " ".join(done.stderr.split())
    assert f"Expected {tmp_path}/include/NvInferRuntime.h, got no such file" in message


def test_an_older_tensorrt_is_refused(tmp_path: Path):
    done = configure(tmp_path / "build", f"-DTENSORRT_DIR={headers_of(tmp_path / 'trt', 8)}")
    assert done.returncode != 0
    assert 'Expected the headers of TensorRT >= 10, got "8"' in " ".join(done.stderr.split())


def test_without_nvcc_the_build_says_where_it_looked(tmp_path: Path):
    done = configure(
        tmp_path / "build",
        f"-DTENSORRT_DIR={headers_of(tmp_path / 'trt', 10)}",
        "-DCMAKE_CUDA_COMPILER=NOTFOUND",
    )
    assert done.returncode != 0
    assert "Expected nvcc on PATH, in CUDACXX or as -DCMAKE_CUDA_COMPILER" in done.stderr


def test_without_tensorrts_headers_the_tests_of_the_plugin_are_skipped_and_say_so(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.delenv("TENSORRT_DIR", raising=False)
    with pytest.raises(pytest.skip.Exception, match="TENSORRT_DIR is not set: the folder whose"):
        tensorrt_folder()
