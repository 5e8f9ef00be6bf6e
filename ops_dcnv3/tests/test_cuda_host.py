"""The CUDA kernels, run on the host thread by thread, against the reference.

No GPU and no CUDA toolkit is needed: cuda_host/ compiles the kernels' bodies and their launch plans
for this machine. What this cannot show stands in docs/cuda_kernels.md.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from dcnv3_cases import RESULT_NAMES, Case, assert_all_close, assert_as_exact_as_pytorch, run
from host_kernels import DTYPES, HostOperator, Layout, Run, host_kernels
from test_native import CASES as NATIVE_CASES
from test_native import LOW_PRECISION_CASES, SIZE_CASES
from torch import Tensor

import ops_dcnv3

TILE_CASES = [
    Case(height=1, width=1, group_channels=16),
    Case(height=1, width=13, group_channels=16),
    Case(height=13, width=1, group_channels=32),
    Case(batch=5, height=7, width=7, group_channels=16, groups=1),
    Case(batch=1, height=14, width=14, group_channels=16, groups=3),
    Case(batch=1, height=17, width=19, group_channels=16, groups=1, softmax=True),
    Case(batch=1, height=40, width=33, group_channels=8, groups=1),
]
CASES = [*(c for c in NATIVE_CASES if c not in SIZE_CASES), *TILE_CASES]
LOW_CASES = [*(c for c in LOW_PRECISION_CASES if c not in SIZE_CASES), *TILE_CASES]

# What the launch plans do on an H200; tiles and windows so small that small images have edges,
# halos and tails too; the same with tensor cores and without them; no shared memory, so that all is
# added in global memory; and the way that gives the same bits at every run.
SMALL = Run(side=3, groups=2, threads=64)
RUNS = {
    "planned": Run(),
    "small tiles, matrices": SMALL,
    "planned, no matrices": Run(matrices=False),
    "small tiles": replace(SMALL, shared_bytes=256, matrices=False),
    "no window": Run(shared_bytes=0, matrices=False),
    "deterministic": Run(deterministic=True),
}


def runs_of(dtype: torch.dtype) -> list[Run]:
    """Those that differ: matrices are for 16-bit numbers."""
    names = [n for n in RUNS if dtype.itemsize == 2 or "matrices" not in n]
    return [RUNS[name] for name in names]


ALIGNED = Layout()
ORDERS = (("descending", 0), ("random", 1), ("random", 2))

# Both forward routes, tails in every direction, an odd number of groups.
FEW_CASES = [
    Case(batch=1, height=9, width=10, group_channels=16, groups=3, softmax=True),
    Case(batch=2, height=5, width=6, group_channels=32, groups=1),
    Case(batch=1, height=7, width=6, group_channels=7, groups=3, softmax=True, stride=2),
    Case(height=6, width=5, group_channels=9, kernel_size=(3, 5), remove_center=True),
]

dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d)[6:])
low_dtypes = pytest.mark.parametrize("dtype", DTYPES[2:], ids=lambda d: str(d)[6:])
runs = pytest.mark.parametrize("how", RUNS)


def results(
    case: Case,
    tensors: tuple[Tensor, ...],
    how: Run,
    layout: Layout = ALIGNED,
    kind: str = "plain",
) -> tuple[Tensor, ...]:
    """Output and the three gradients by the CUDA kernels."""
    operator = HostOperator(host_kernels(kind), how, layout)
    return run(operator, tensors, case.grad_output(tensors[0].dtype), case.settings)


class Judge:
    """Compares results with the reference, computed once for a case."""

    def __init__(self, case: Case, tensors: tuple[Tensor, ...]):
        grad_output, reference = case.grad_output(tensors[0].dtype), ops_dcnv3.dcnv3_reference
        doubles = tuple(t.double() for t in tensors)
        self.exact = run(reference, doubles, grad_output.double(), case.settings)
        self.pytorch = run(reference, tensors, grad_output, case.settings)

    def __call__(self, actual: tuple[Tensor, ...]) -> None:
        if actual[0].dtype == torch.float64:
            assert_all_close(actual, self.exact, tolerance=1e-10)
        else:
            assert_as_exact_as_pytorch(actual, self.pytorch, self.exact)


@pytest.mark.slow
@pytest.mark.parametrize(
    "case, dtype",
    [(case, dtype) for dtype in DTYPES for case in (LOW_CASES if dtype.itemsize == 2 else CASES)],
    ids=lambda value: str(value).removeprefix("torch."),
)
def test_the_kernels_are_as_exact_as_pytorch(case, dtype):
    tensors = case.tensors(dtype)
    judge = Judge(case, tensors)
    for how in runs_of(dtype):
        judge(results(case, tensors, how))


@pytest.mark.slow
@dtypes
@runs
@pytest.mark.parametrize("case", FEW_CASES, ids=str)
def test_no_order_of_blocks_and_threads_changes_more_than_the_rounding_of_a_sum(case, dtype, how):
    """In the deterministic way not even that."""
    tensors = case.tensors(dtype)
    judge = Judge(case, tensors)
    first = results(case, tensors, RUNS[how])
    for order, seed in ORDERS:
        other = results(case, tensors, replace(RUNS[how], order=order, seed=seed))
        judge(other)
        for index, name in enumerate(RESULT_NAMES):
            if name != "grad_input" or how == "deterministic":
                assert torch.equal(other[index], first[index]), f"{name} differs"


LAYOUTS = {
    "packed": Layout(packed=True),
    "packed with padding": Layout(packed=True, padding=5),
    "packed to a multiple of 8": Layout(packed=True, padding=7, point_shift=8),
    "points at an odd address": Layout(point_shift=1),
    "packed at an odd address": Layout(packed=True, padding=2, point_shift=3),
}


@dtypes
@pytest.mark.slow
@pytest.mark.parametrize("how", ["planned", "deterministic"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_does_not_matter_how_offsets_and_mask_lie(dtype, how, layout):
    """With 3 groups of 9 points a pixel of the packed tensor starts anywhere."""
    for case in FEW_CASES:
        tensors = case.tensors(dtype)
        expected = results(case, tensors, RUNS[how])
        actual = results(case, tensors, RUNS[how], LAYOUTS[layout])
        for name, ours, theirs in zip(RESULT_NAMES, actual, expected, strict=True):
            assert torch.equal(ours, theirs), f"{name} differs"


@low_dtypes
@pytest.mark.parametrize("how", ["planned", "deterministic"])
@pytest.mark.parametrize("float32_mask", [False, True])
def test_float32_offsets_go_with_a_16_bit_input(dtype, how, float32_mask):
    for case in FEW_CASES:
        image, offset, mask = case.tensors(torch.float32)
        tensors = (image.to(dtype), offset, mask if float32_mask else mask.to(dtype))
        Judge(case, tensors)(results(case, tensors, RUNS[how]))


@dtypes
@runs
@pytest.mark.slow
@pytest.mark.parametrize("spread", [0.0, 8.0, 100.0])
def test_points_far_from_their_pixel_leave_the_window_and_the_image(dtype, how, spread):
    case = Case(batch=1, height=20, width=19, group_channels=16, groups=1)
    tensors = case.tensors(dtype, spread=spread)
    Judge(case, tensors)(results(case, tensors, RUNS[how]))


def test_the_fast_kernels_serve_16_and_32_channels_of_3_by_3_points():
    """And so are run above."""
    kernels = host_kernels("plain")
    for dtype, lanes in zip(DTYPES, (0, 4, 2, 2), strict=True):
        for channels, expected in ((16, lanes), (32, 2 * lanes), (24, 0), (64, 0)):
            case = Case(group_channels=channels)
            assert kernels.forward_lanes(case.tensors(dtype), case.settings) == expected
        case = Case(group_channels=16, remove_center=True)
        assert kernels.forward_lanes(case.tensors(dtype), case.settings) == 0
