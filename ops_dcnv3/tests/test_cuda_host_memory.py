"""What the CUDA kernels, run on the host, touch: watched, under sanitizers, in huge tensors."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import test_large
import torch
from dcnv3_cases import Case
from host_build import build
from host_kernels import DTYPES, HostOperator, Layout, Run, host_kernels
from test_cuda_host import FEW_CASES, Judge, results, runs_of

ROUNDS = 25

dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d)[6:])


@dtypes
@pytest.mark.slow
@pytest.mark.parametrize("case", FEW_CASES, ids=str)
def test_every_load_and_store_is_in_bounds_aligned_and_free_of_races(case, dtype):
    """In another build of the same kernels, see cuda_host/memory_watch.h."""
    tensors = case.tensors(dtype, spread=3.0)
    judge = Judge(case, tensors)
    for seed, how in enumerate(runs_of(dtype)):
        layout = Layout(packed=seed % 2 == 1, padding=seed)
        how = replace(how, order="random", seed=seed)
        judge(results(case, tensors, how, layout, kind="watched"))


@dtypes
@pytest.mark.slow
@pytest.mark.parametrize("shift", [1, 4])
@pytest.mark.parametrize("which", ["shift", "output_shift", "grad_shift"])
def test_tensors_that_start_between_two_multiples_of_16_bytes_are_served(dtype, shift, which):
    """By the kernels of single numbers, where the fast ones need 16 bytes at a time."""
    for case in FEW_CASES[:2]:
        tensors = case.tensors(dtype)
        layout = Layout(**{which: shift})
        Judge(case, tensors)(results(case, tensors, Run(), layout, kind="watched"))


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`cuda_host/driver.cpp` with the sanitizers."""
    return build(tmp_path_factory.mktemp("driver"), "driver", "sanitized")


def drive(driver: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the program."""
    env = os.environ | {"ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0"}
    return subprocess.run([driver, *arguments], env=env, capture_output=True, text=True)


@pytest.mark.slow
def test_no_access_out_of_bounds_and_no_undefined_behaviour(driver):
    done = drive(driver, "1", str(ROUNDS))
    assert done.returncode == 0, done.stderr[-4000:]
    assert f"{ROUNDS} rounds" in done.stdout


@pytest.mark.slow
def test_the_sanitizer_sees_a_tensor_that_is_one_element_short(driver):
    done = drive(driver, "1", "1", "short")
    assert done.returncode != 0
    assert "AddressSanitizer: heap-buffer-overflow" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "batch, height, width",
    [(1, 8200, 8192), (5, 4096, 4100)],
    ids=["one image of 2^31", "images of 2^29"],
)
def test_an_input_of_more_than_2_31_elements_is_indexed_right(batch, height, width):
    operator = HostOperator(host_kernels("plain"))
    test_large.test_an_input_of_more_than_2_31_elements_is_indexed_right(
        operator, batch, height, width
    )


# Multiprocessors and shared bytes of a block: A100, RTX 3090, L4, H200, RTX 5090.
DEVICES = [(108, 166912), (82, 101376), (58, 101376), (132, 232448), (170, 101376)]
LARGE_CASES = [
    *(Case(b, s, s, g, 16) for s, g in ((56, 4), (28, 8), (14, 16), (7, 32)) for b in (1, 64, 512)),
    *(Case(16, s, t, g, 16) for s, t, g in ((200, 320, 10), (100, 160, 20), (25, 40, 80))),
    Case(8, 224, 224, 40, 32, softmax=True),
    Case(2, 1024, 1024, 1, 1024),
    Case(1, 8192, 8192, 1, 1),
    Case(4, 64, 64, 4, 257, kernel_size=7, padding=3),
    Case(1, 4096, 4096, 12, 16, stride=4, dilation=9, offset_scale=1e30),
    Case(100000, 1, 1, 3, 7),
]


@pytest.mark.slow
@dtypes
@pytest.mark.parametrize("case", LARGE_CASES, ids=str)
def test_a_gpu_would_accept_every_launch(case, dtype):
    kernels = host_kernels("plain")
    for multiprocessors, shared_bytes in DEVICES:
        for deterministic in (False, True):
            how = Run(
                multiprocessors=multiprocessors,
                shared_bytes=shared_bytes,
                deterministic=deterministic,
            )
            assert kernels.check_launches(case, dtype, how) == ""


def test_sizes_beyond_the_kernels_counters_are_refused():
    kernels = host_kernels("plain")
    assert "sampling points" in kernels.check_launches(
        Case(1, 1, 1, 2**27, 1), torch.float32, Run()
    )
    assert "pixels" in kernels.check_launches(Case(2**31, 1, 1, 1, 1), torch.float32, Run())


@pytest.mark.parametrize(
    "settings",
    [{"stride": 2**62, "padding": 2**61}, {"dilation": 2**61, "padding": 2**61}],
    ids=str,
)
def test_what_32_bits_cannot_count_is_refused(settings):
    """A product of such numbers would overflow 64 bits before it is compared with anything."""
    size = 2 if "stride" in settings else 5
    tensors = (torch.zeros(1, n, n, k) for n, k in ((5, 16), (size, 18), (size, 9)))
    with pytest.raises(AssertionError, match="settings number more than 2\\^30"):
        HostOperator(host_kernels("plain"))(*tensors, groups=1, **settings)
