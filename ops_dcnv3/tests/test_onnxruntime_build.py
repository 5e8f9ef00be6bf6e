"""The library for ONNX Runtime as CMake builds it from ONNX Runtime's own headers."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from dcnv3_cases import Case

import ops_dcnv3

PROJECT = Path(__file__).resolve().parents[1] / "onnxruntime_library"
HEADERS = os.environ.get("ORT_INCLUDE_DIR")


def configure(build: Path, headers: str) -> subprocess.CompletedProcess[str]:
    """CMake's first step."""
    if shutil.which("cmake") is None:
        pytest.skip("cmake is not installed")
    command = ["cmake", "-S", str(PROJECT), "-B", str(build), f"-DORT_INCLUDE_DIR={headers}"]
    return subprocess.run(command, capture_output=True, text=True)


def test_without_the_headers_cmake_names_the_folder_it_needs(tmp_path):
    done = configure(tmp_path / "build", "/no/headers")
    assert done.returncode != 0
    message = " ".join(done.stderr.split())
    assert "expected ORT_INCLUDE_DIR = the folder of onnxruntime_c_api.h, got '/no/hea" in message


@pytest.mark.slow
@pytest.mark.skipif(not HEADERS, reason="ORT_INCLUDE_DIR does not name ONNX Runtime's C headers")
def test_the_declarations_are_those_of_the_headers_and_the_library_runs(tmp_path):
    """header_check.cpp compares every place at compile time; then a node is run."""
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    from ort_models import PACKED, TYPES, attributes, feed, session

    build = tmp_path / "build"
    assert configure(build, str(HEADERS)).returncode == 0
    done = subprocess.run(["cmake", "--build", str(build), "-j2"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning" not in done.stdout + done.stderr
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(str(build / "libdcnv3_onnxruntime.so"))
    case = Case(height=9, width=11, groups=3, group_channels=16, stride=2, softmax=True)
    tensors = case.tensors(torch.float32)
    made = session(options, PACKED, TYPES[torch.float32], attributes(case))
    found = torch.from_numpy(made.run(None, feed(tensors, PACKED))[0])
    expected = ops_dcnv3.dcnv3_reference(*tensors, **case.settings)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.skipif(not HEADERS, reason="ORT_INCLUDE_DIR does not name ONNX Runtime's C headers")
def test_a_place_that_is_wrong_does_not_compile(tmp_path):
    source = PROJECT.parent / "src" / "ops_dcnv3" / "csrc" / "onnxruntime"
    shutil.copytree(source, tmp_path / "onnxruntime")
    abi = tmp_path / "onnxruntime" / "abi.h"
    text = abi.read_text()
    assert "kGetInput = 90," in text
    abi.write_text(text.replace("kGetInput = 90,", "kGetInput = 89,"))
    command = ["c++", "-std=c++17", "-fsyntax-only", f"-I{HEADERS}", "header_check.cpp"]
    done = subprocess.run(command, cwd=abi.parent, capture_output=True, text=True)
    assert done.returncode != 0 and "KernelContext_GetInput" in done.stderr
