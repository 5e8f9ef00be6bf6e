"""The same call gives the same bits, run after run."""

from __future__ import annotations

import pytest
import torch
from dcnv3_cases import RESULT_NAMES, Case, Operator, run
from torch import Tensor

from ops_dcnv3 import dcnv3_reference

# With threads <= N * G each (image, group) of the backward pass has one owner, whatever the number.
MANY_OWNERS = [
    Case(batch=3, height=14, width=14, groups=4, group_channels=16, softmax=True),
    Case(batch=2, height=33, width=17, groups=3, group_channels=7, stride=2),
]
# Here rows are shared out as well, and partial gradients of the input are added in a fixed order.
FEW_OWNERS = [
    Case(batch=1, height=40, width=30, groups=1, group_channels=32),
    Case(batch=1, height=33, width=17, groups=2, group_channels=7, softmax=True),
]

dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=lambda d: str(d)[6:])


def results(operator: Operator, case: Case, dtype: torch.dtype, threads: int) -> tuple[Tensor, ...]:
    """Output and gradients, computed with this many threads."""
    torch.set_num_threads(threads)
    return run(operator, case.tensors(dtype), case.grad_output(dtype), case.settings)


def assert_equal_but_for_rounding(ours: Tensor, theirs: Tensor) -> None:
    """Compares with two units in the last place of the largest number."""
    rounding = 2 * torch.finfo(theirs.dtype).eps * theirs.abs().max().item()
    torch.testing.assert_close(ours, theirs, rtol=0, atol=rounding)


def is_pytorchs_softmax(operator: Operator, case: Case, name: str) -> bool:
    """Whether PyTorch's gradient of softmax made this result, by autograd of the reference.

    With AVX2 its bits depend on where the share of a thread ends (PyTorch 2.13). The operator's
    kernels have a softmax of their own, and so has ``reference.backward``.
    """
    return operator is dcnv3_reference and case.softmax and name == "grad_mask"


@dtypes
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("case", MANY_OWNERS + FEW_OWNERS, ids=str)
def test_a_repeated_call_gives_the_same_bits(operator, case, dtype, threads):
    first = results(operator, case, dtype, threads)
    for _ in range(3):
        for ours, theirs in zip(results(operator, case, dtype, threads), first, strict=True):
            assert torch.equal(ours, theirs)


@dtypes
@pytest.mark.parametrize("threads", [2, 3, 4])
@pytest.mark.parametrize("case", MANY_OWNERS, ids=str)
def test_the_number_of_threads_changes_nothing(operator, case, dtype, threads):
    first = results(operator, case, dtype, 1)
    for name, ours, theirs in zip(
        RESULT_NAMES, results(operator, case, dtype, threads), first, strict=True
    ):
        if is_pytorchs_softmax(operator, case, name):
            assert_equal_but_for_rounding(ours, theirs)
        else:
            assert torch.equal(ours, theirs), name


@dtypes
@pytest.mark.parametrize("threads", [2, 3, 4])
@pytest.mark.parametrize("case", FEW_OWNERS, ids=str)
def test_more_threads_than_images_and_groups_change_no_more_than_the_rounding_of_grad_input(
    operator, case, dtype, threads
):
    first = results(operator, case, dtype, 1)
    for name, ours, theirs in zip(
        RESULT_NAMES, results(operator, case, dtype, threads), first, strict=True
    ):
        if name == "grad_input" or is_pytorchs_softmax(operator, case, name):
            assert_equal_but_for_rounding(ours, theirs)
        else:
            assert torch.equal(ours, theirs), name
