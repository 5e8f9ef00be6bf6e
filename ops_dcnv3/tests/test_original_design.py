"""The original's kernel design, which only the benchmark runs: its arithmetic, on the CPU."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from benchmark_scripts import imported
from dcnv3_cases import Case, assert_all_close, pair, run_oracle

TESTS = Path(__file__).parent
COMPILER = os.environ.get("CXX", "c++").split()[0]
CASES = [
    Case(batch=2, height=3, width=4, groups=2, group_channels=16),  # one thread adds up
    Case(batch=1, height=2, width=3, groups=1, group_channels=64),  # by halves
    Case(batch=1, height=2, width=2, groups=2, group_channels=37),  # by halves, odd
    Case(height=5, width=6, groups=1, group_channels=2, kernel_size=(3, 5), padding=(1, 2)),
    Case(batch=1, height=7, width=6, groups=3, group_channels=1, stride=(2, 1), padding=(0, 2)),
    Case(height=6, width=5, groups=1, group_channels=2, dilation=(2, 1), offset_scale=2.0),
]


@pytest.fixture(scope="module")
def design() -> Iterator[ModuleType]:
    """`original_design.py`; it is a script's, not a package's."""
    with imported("original_design") as modules:
        yield modules["original_design"]


@pytest.fixture(scope="module")
def on_the_host(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The kernels compiled for the CPU."""
    if shutil.which(COMPILER) is None:
        pytest.skip(f"no C++ compiler: {COMPILER!r}")
    library = tmp_path_factory.mktemp("original") / "host.so"
    flags = ["-std=c++17", "-O1", "-fPIC", "-shared", "-pthread", "-Wall", "-Wextra", "-Werror"]
    source = TESTS / "original_design_host.cpp"
    subprocess.run([COMPILER, *flags, str(source), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


def sizes_of(design: ModuleType, case: Case) -> ctypes.Structure:
    """The case as the kernels take it."""
    out = case.geometry.output_size(case.height, case.width)
    pairs = (case.kernel_size, case.stride, case.padding, case.dilation)
    return design.Sizes(
        *(case.batch, case.height, case.width, *out, case.groups, case.group_channels),
        *(side for value in pairs for side in pair(value)),
        case.offset_scale,
    )


def pointers(*tensors: torch.Tensor) -> list[ctypes.c_void_p]:
    return [ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_kernels_compute_what_the_oracle_computes(on_the_host, design, case):
    tensors, grad_output = case.tensors(torch.float32), case.grad_output(torch.float32)
    sizes = ctypes.byref(sizes_of(design, case))
    output = torch.full_like(grad_output, torch.nan)
    on_the_host.host_forward(sizes, 3, *pointers(*tensors, output))  # 3 blocks: many rounds each
    gradients = [
        torch.zeros_like(tensors[0]),
        *(torch.full_like(t, torch.nan) for t in tensors[1:]),
    ]
    on_the_host.host_backward(sizes, *pointers(grad_output, *tensors, *gradients))
    expected = run_oracle(tensors, grad_output, case)
    assert_all_close((output, *gradients), expected, tolerance=2e-5)


def test_the_struct_has_a_3_by_3_kernel_and_the_size_of_the_input(design):
    sizes = design.sizes_of(torch.zeros(5, 7, 6, 48), groups=3)
    assert (sizes.batch, sizes.height, sizes.width) == (5, 7, 6)
    assert (sizes.out_height, sizes.out_width) == (7, 6)
    assert (sizes.groups, sizes.channels, sizes.offset_scale) == (3, 16, 1.0)
    assert (sizes.kernel_h, sizes.kernel_w, sizes.padding_h, sizes.dilation_w) == (3, 3, 1, 1)


@pytest.fixture
def _nvcc(design: ModuleType) -> None:
    """Skips where there is none."""
    try:
        design.find_nvcc()
    except design.NoCudaError as reason:
        pytest.skip(f"the original's design was not compiled: {reason}")


@pytest.mark.usefixtures("_nvcc")
def test_nvcc_compiles_it_with_both_entries(design, tmp_path):
    library = design.build(tmp_path, (9, 0))
    loaded = design.OriginalDesign(library)  # looks both functions up
    image = torch.zeros(1, 2, 2, 16, dtype=torch.bfloat16)
    with pytest.raises(RuntimeError, match="no kernel for torch.bfloat16"):
        loaded.forward(image, image, image[..., :9], groups=1)


@pytest.mark.usefixtures("_nvcc")
def test_a_compiler_that_fails_is_an_error_that_shows_what_it_said(design, tmp_path):
    with pytest.raises(RuntimeError, match="nvcc failed"):
        design.build(tmp_path, (1, 0))


def test_without_nvcc_the_error_says_so(design, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    with pytest.raises(RuntimeError, match="original_design: no nvcc: CUDA_HOME is .* no bin/nvcc"):
        design.build(tmp_path, (9, 0))
