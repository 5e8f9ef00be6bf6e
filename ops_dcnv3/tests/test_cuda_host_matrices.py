"""The gradient of the input as a product of matrices, for 16-bit numbers, run on the host."""

from __future__ import annotations

import math

import pytest
import torch
from dcnv3_cases import Case, run
from host_kernels import DTYPES, HostOperator, Run, host_kernels
from test_cuda_host import Judge, results

import ops_dcnv3

# Small images whole in one window (exclusive); larger ones with tiles that reach beyond the border.
SMALL_CASES = [
    Case(batch=3, height=7, width=7, groups=2, group_channels=16, softmax=True),
    Case(batch=1, height=14, width=14, groups=1, group_channels=48, softmax=True),
    Case(batch=1, height=16, width=16, groups=1, group_channels=32, softmax=True),
    Case(batch=1, height=15, width=16, group_channels=16, stride=2, softmax=True),
    Case(batch=1, height=9, width=9, group_channels=16, padding=5, softmax=True),
]
LARGE_CASES = [
    Case(batch=2, height=17, width=19, group_channels=16, softmax=True),
    Case(batch=1, height=40, width=33, groups=1, group_channels=32, softmax=True),
    Case(batch=1, height=24, width=25, groups=1, group_channels=48, dilation=2, padding=2),
    Case(batch=1, height=23, width=19, groups=1, group_channels=16, stride=2, softmax=True),
    Case(batch=1, height=18, width=19, groups=3, group_channels=16, offset_scale=2.0),
]
SPREADS = (0.0, 1.5, 30.0)

pytestmark = pytest.mark.slow
low_dtypes = pytest.mark.parametrize("dtype", DTYPES[2:], ids=lambda d: str(d)[6:])


def is_by_matrices(case: Case, dtype: torch.dtype) -> bool:
    """Whether the launch plan goes this way: it changes what the kernels leave behind."""
    return host_kernels("plain").uses_matrices(case.tensors(dtype), case.settings, Run())


@low_dtypes
@pytest.mark.parametrize("case", SMALL_CASES + LARGE_CASES, ids=str)
def test_the_product_is_as_exact_as_pytorch(case, dtype):
    if dtype == torch.float16 and not case.softmax:
        assert not is_by_matrices(case, dtype)  # weights that are no softmax may leave its range
        return
    assert is_by_matrices(case, dtype)
    for spread in SPREADS:
        tensors = case.tensors(dtype, spread=spread)
        judge = Judge(case, tensors)
        for how in (Run(), Run(order="random", seed=3), Run(side=3, order="descending")):
            judge(results(case, tensors, how))


@low_dtypes
@pytest.mark.parametrize("case", [SMALL_CASES[0], SMALL_CASES[3], *LARGE_CASES[:2]], ids=str)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_gradient_that_is_not_finite_reaches_the_pixels_that_it_reaches_in_pytorch(
    case, dtype, value
):
    """A product with zero would spread it over the whole window."""
    tensors = case.tensors(dtype, spread=3.0)
    clean = case.grad_output(dtype)
    clean[0, 1, 2, 3] = 0
    clean[-1, 3:5, :, 5] = 0
    spoilt = clean.clone()
    spoilt[0, 1, 2, 3] = value
    spoilt[-1, 3:5, :, 5] = value
    expected = run(ops_dcnv3.dcnv3_reference, tensors, spoilt, case.settings)[1]
    finite = torch.isfinite(expected)
    assert finite.any() and not finite.all()
    kernels = host_kernels("watched" if math.isnan(value) else "plain")
    operator = HostOperator(kernels, Run(order="random", seed=1))
    actual = run(operator, tensors, spoilt, case.settings)[1]
    assert torch.equal(torch.isfinite(actual), finite)
    unspoilt = run(operator, tensors, clean, case.settings)[1]
    difference = (actual - unspoilt)[finite].abs().max()
    assert difference <= 2 * torch.finfo(dtype).eps * unspoilt.abs().max()


@low_dtypes
@pytest.mark.parametrize("case", [SMALL_CASES[0], LARGE_CASES[0]], ids=str)
def test_offsets_that_are_not_finite_contribute_nothing(case, dtype):
    image, offset, mask = case.tensors(dtype)
    for index, value in enumerate((math.nan, math.inf, -math.inf, 1e30, -1e30)):
        offset.view(-1)[index::13] = value
    Judge(case, (image, offset, mask))(results(case, (image, offset, mask), Run()))
