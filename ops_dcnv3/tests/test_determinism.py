"""The same call gives the same bits, run after run."""

from __future__ import annotations

import pytest
import torch
from dcnv3_cases import RESULT_NAMES, Case, Operator, run
from torch import Tensor

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
    for ours, theirs in zip(results(operator, case, dtype, threads), first, strict=True):
        assert torch.equal(ours, theirs)


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
        if name == "grad_input":
            rounding = 2 * torch.finfo(dtype).eps * theirs.abs().max().item()
            torch.testing.assert_close(ours, theirs, rtol=0, atol=rounding)
        else:
            assert torch.equal(ours, theirs), name
