"""Triton's kernels without a GPU: interpreted on the CPU, and compiled for GPUs that are not here.

The interpreter proves the maths, the compiler that it accepts what the interpreter ran. Neither
proves that the kernels are right on a GPU; for that there are the GPU tests.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from dcnv3_cases import Case
from environments import environment
from torch._subclasses import FakeTensorMode

triton = pytest.importorskip("triton", reason="Triton is not installed", exc_type=ImportError)

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.runtime import driver, jit  # noqa: E402

from ops_dcnv3 import triton_kernels, triton_ops  # noqa: E402

TESTS = Path(__file__).parent
CASE = Case(batch=2, height=7, width=9, groups=4, group_channels=16, softmax=True)
AMPERE, HOPPER, BLACKWELL = (GPUTarget("cuda", number, 32) for number in (80, 90, 120))
MI300 = GPUTarget("hip", "gfx942", 64)
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


# ------------------------------------------------------------------------------- the interpreter


def interpret(*arguments: str) -> None:
    """Run test files of this folder with the kernels interpreted; they must pass, none skipped."""
    command = [sys.executable, "-m", "pytest", "-q", "--import-mode=importlib", "-p", "no:randomly"]
    done = subprocess.run(
        [*command, *arguments],
        env=environment(OPS_DCNV3_BACKEND="triton", TRITON_INTERPRET="1"),
        cwd=TESTS,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-1000:]
    summary = done.stdout.strip().splitlines()[-1]
    assert "passed" in summary and "skipped" not in summary


@pytest.mark.slow
def test_the_interpreted_kernels_equal_the_oracle_and_are_as_exact_as_pytorch():
    interpret("triton_checks.py")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, chosen",
    [("hostile", "float16 and not bfloat16"), ("layouts", "packed or expanded or one_tensor")],
)
def test_the_interpreted_kernels_pass_tests_of_the_compiled_ones(name, chosen):
    """A share of them: the interpreter takes a second for what kernels do in a millisecond."""
    interpret(f"test_{name}.py", "-k", f"triton and ({chosen})")


# ---------------------------------------------------------------------------------- the compiler


class AbsentGPU:
    """Triton's driver for a GPU that is not here: says what to compile for."""

    def __init__(self, target: Any) -> None:
        self.target = target

    def get_current_target(self) -> Any:
        return self.target

    def get_current_device(self) -> str:
        return str(self.target)  # kernels are cached by device

    def get_current_stream(self, device: str) -> int:
        return 0


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[Any]]:
    """Kernels that were launched, in order: compiled, and not run."""
    kernels: list[Any] = []
    run = jit.JITFunction.run

    def compile_only(kernel: Any, *args: Any, grid: Any, warmup: bool, **constants: Any) -> None:
        kernels.append(run(kernel, *args, grid=grid, warmup=True, **constants))

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(jit.JITFunction, "run", compile_only)
    yield kernels
    driver._active = None


def launch(case: Case, dtype: torch.dtype) -> None:
    """Forward, backward and deterministic backward, as for CUDA tensors."""
    tensors, grad_output = case.tensors(dtype), case.grad_output(dtype)
    static = (*case.static_arguments, case.softmax)
    triton_ops.dcnv3(*tensors, *static)
    for deterministic in (False, True):
        triton_ops.dcnv3_backward(grad_output, *tensors, *static, deterministic)


NAMES = ["forward_kernel", "backward_kernel", "backward_kernel", "scatter_kernel"]


@pytest.mark.slow
@pytest.mark.parametrize("target", [AMPERE, HOPPER, BLACKWELL, MI300], ids=lambda t: str(t.arch))
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d)[6:])
def test_the_kernels_compile_to_machine_code(compiled, target, dtype):
    driver.set_active(AbsentGPU(target))
    launch(CASE, dtype)
    assert [kernel.name for kernel in compiled] == NAMES
    binary, text = ("cubin", "ptx") if target.backend == "cuda" else ("hsaco", "amdgcn")
    assert all(len(kernel.asm[binary]) > 1000 for kernel in compiled)
    # the kernels of the deterministic way add nothing that others may add to as well
    atomic = r"\b(atom|red)\.global" if text == "ptx" else r"_atomic_"
    adds = [re.search(atomic, kernel.asm[text]) is not None for kernel in compiled]
    assert adds == [False, True, False, False]
    # There, what one thread of a program wrote another reads: a barrier lies between. A program of
    # one wave needs none on AMD.
    if text == "ptx":
        assert "bar.sync" in compiled[3].asm[text]


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [
        replace(CASE, softmax=False, remove_center=True, offset_scale=0.7),
        replace(CASE, kernel_size=5, padding=2, stride=2, dilation=2, group_channels=7, groups=1),
        replace(CASE, group_channels=257, groups=1, kernel_size=(2, 1)),
        replace(CASE, group_channels=1, groups=3),
    ],
    ids=str,
)
def test_every_geometry_compiles(compiled, case):
    driver.set_active(AbsentGPU(AMPERE))
    launch(case, torch.float16)
    assert [kernel.name for kernel in compiled] == NAMES


@pytest.mark.slow
def test_int64_indices_compile(compiled, monkeypatch):
    monkeypatch.setattr(triton_ops, "INT32_LIMIT", 1)
    driver.set_active(AbsentGPU(AMPERE))
    launch(CASE, torch.float16)
    assert [kernel.name for kernel in compiled] == NAMES


def test_sixteen_bytes_are_loaded_at_a_time(compiled):
    driver.set_active(AbsentGPU(AMPERE))
    launch(CASE, torch.float16)
    for kernel in compiled[:3]:
        assert "ld.global.v4.b32" in kernel.asm["ptx"], kernel.name


def test_pictures_and_batches_of_other_sizes_compile_nothing_anew(compiled):
    driver.set_active(AbsentGPU(AMPERE))
    for batch, height, width in ((2, 7, 9), (1, 16, 32), (16, 1, 1), (5, 13, 4)):
        launch(replace(CASE, batch=batch, height=height, width=width), torch.float16)
    assert len({id(kernel) for kernel in compiled}) == len(NAMES)


def test_the_kernel_that_tries_triton_compiles(compiled):
    driver.set_active(AbsentGPU(AMPERE))
    triton_kernels.probe_kernel[(1,)](torch.empty(1, dtype=torch.int32))
    assert [kernel.name for kernel in compiled] == ["probe_kernel"]


# --------------------------------------------------------------------------------- what is launched


@pytest.mark.parametrize("index", [0, 1])
def test_kernels_are_launched_on_the_device_of_the_tensors(index):
    with FakeTensorMode():
        tensors = [t.to(torch.device("cuda", index)) for t in CASE.tensors()]
        guard = triton_ops._Launch(*tensors, CASE.static_arguments, CASE.softmax).device()
    assert isinstance(guard, torch.cuda.device) and guard.idx == index


def test_slices_of_a_packed_tensor_are_read_where_they_are():
    packed = torch.zeros(2, 3, 4, 32)
    part = packed[..., 5:23]
    pixels = triton_ops._pixels(part)
    assert pixels.tensor is part and pixels.stride == 32


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(2 * 3 * 4 * 6.0).view(2, 6, 3, 4).permute(0, 2, 3, 1),  # pixels side by side
        torch.arange(2 * 3 * 8 * 6.0).view(2, 3, 8, 6)[:, :, ::2][:, :2],  # rows cut off
        torch.arange(6.0).expand(2, 3, 4, 6),  # all pixels in one place
    ],
)
def test_pixels_that_are_not_evenly_spaced_are_copied(tensor):
    pixels = triton_ops._pixels(tensor)
    assert pixels.tensor.is_contiguous() and pixels.stride == 6
    assert torch.equal(pixels.tensor, tensor)
