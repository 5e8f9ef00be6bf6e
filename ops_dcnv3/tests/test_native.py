"""The compiled kernels against the reference, at each instruction-set level, over a table."""

from __future__ import annotations

import pytest
import torch
from dcnv3_cases import Case, assert_all_close, assert_as_exact_as_pytorch, run

import ops_dcnv3

LOW_PRECISION = (torch.float32, torch.bfloat16, torch.float16)

CHANNEL_CASES = [
    Case(batch=1, height=3, width=4, groups=groups, group_channels=channels)
    for groups, channels in (
        *((2, d) for d in (1, 2, 3, 4, 7, 8, 15, 16, 17, 24, 31, 32, 33, 48, 64, 65)),
        *((1, d) for d in (128, 257, 1024)),
    )
]
GROUP_CASES = [
    Case(height=4, width=5, groups=groups, group_channels=4) for groups in (1, 3, 5, 7, 20)
]
KERNEL_CASES = [
    Case(height=8, width=9, kernel_size=1, padding=0),
    Case(height=8, width=9, kernel_size=2),
    Case(height=8, width=9, kernel_size=(2, 3)),
    Case(height=8, width=9, kernel_size=5, padding=2),
    Case(height=8, width=9, kernel_size=7, padding=3, groups=1),
    Case(height=8, width=9, kernel_size=(3, 5), padding=(1, 2)),
    Case(height=8, width=9, kernel_size=(5, 3), padding=(2, 1)),
    Case(height=8, width=9, kernel_size=(1, 3), padding=(0, 1)),
    Case(height=8, width=9, remove_center=True),
    Case(height=8, width=9, kernel_size=5, padding=2, remove_center=True),
    Case(height=8, width=9, kernel_size=(3, 5), padding=(1, 2), remove_center=True),
]
GRID_CASES = [
    Case(height=9, width=8, stride=2),
    Case(height=9, width=8, stride=(1, 3)),
    Case(height=9, width=8, stride=(3, 2), padding=(0, 2)),
    Case(height=9, width=8, padding=0),
    Case(height=9, width=8, padding=(3, 0)),
    Case(height=9, width=8, padding=4),
    Case(height=9, width=8, dilation=2, padding=2),
    Case(height=9, width=8, dilation=(1, 3), padding=(1, 3)),
    Case(height=9, width=8, dilation=(2, 1), stride=(1, 2), padding=(0, 1)),
    Case(height=9, width=8, offset_scale=0.5),
    Case(height=9, width=8, offset_scale=2.0),
    Case(height=9, width=8, offset_scale=2.0, dilation=2, stride=2, padding=(1, 2)),
]
SIZE_CASES = [
    Case(height=1, width=1, group_channels=16),
    Case(height=1, width=13, group_channels=16),
    Case(height=13, width=1, group_channels=16),
    Case(height=17, width=19, group_channels=16, groups=1),
    Case(batch=5, height=3, width=3, group_channels=16),
    Case(batch=1, height=40, width=33, group_channels=16, groups=2),
    Case(batch=0),
]
SOFTMAX_CASES = [
    Case(softmax=True),
    Case(softmax=True, group_channels=16, groups=4),
    Case(softmax=True, kernel_size=1, padding=0),
    Case(softmax=True, kernel_size=5, padding=2),
    Case(softmax=True, kernel_size=(3, 5), remove_center=True, offset_scale=2.0),
    Case(softmax=True, stride=2, group_channels=33),
]
CASES = [
    *CHANNEL_CASES,
    *GROUP_CASES,
    *KERNEL_CASES,
    *GRID_CASES,
    *SIZE_CASES,
    *SOFTMAX_CASES,
]
LOW_PRECISION_CASES = [
    *(c for c in CHANNEL_CASES if c.group_channels in (1, 7, 16, 32, 33, 64, 257)),
    *KERNEL_CASES[3:6],
    KERNEL_CASES[-1],
    *GRID_CASES[-2:],
    *SIZE_CASES,
    *SOFTMAX_CASES,
]


def compare(native, case: Case, tensors: tuple[torch.Tensor, ...]) -> None:
    """Native results as exact as the reference's, judged by the reference in float64."""
    grad_output = case.grad_output(tensors[0].dtype)
    actual = run(native, tensors, grad_output, case.settings)
    pytorch = run(ops_dcnv3.dcnv3_reference, tensors, grad_output, case.settings)
    doubles = tuple(t.double() for t in tensors)
    exact = run(ops_dcnv3.dcnv3_reference, doubles, grad_output.double(), case.settings)
    assert_as_exact_as_pytorch(actual, pytorch, exact)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_native_equals_the_reference_in_float64(native, case):
    tensors, grad_output = case.tensors(), case.grad_output()
    actual = run(native, tensors, grad_output, case.settings)
    expected = run(ops_dcnv3.dcnv3_reference, tensors, grad_output, case.settings)
    assert_all_close(actual, expected, tolerance=1e-10)


@pytest.mark.parametrize("dtype", LOW_PRECISION, ids=lambda d: str(d)[6:])
@pytest.mark.parametrize("case", LOW_PRECISION_CASES, ids=str)
def test_native_is_as_exact_as_pytorch_in_low_precision(native, case, dtype):
    compare(native, case, case.tensors(dtype))


@pytest.mark.parametrize("dtype", LOW_PRECISION[1:], ids=lambda d: str(d)[6:])
@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("float32_mask", [False, True])
def test_float32_offsets_go_with_a_16_bit_input(native, dtype, softmax, float32_mask):
    case = Case(height=9, width=7, group_channels=16, softmax=softmax)
    image, offset, mask = case.tensors(torch.float32)
    tensors = (image.to(dtype), offset, mask if float32_mask else mask.to(dtype))
    compare(native, case, tensors)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=lambda d: str(d)[6:])
def test_only_the_wanted_gradients_are_returned(native, dtype):
    case = Case()
    grad_output = case.grad_output(dtype)
    expected = run(native, case.tensors(dtype), grad_output, case.settings)[1:]
    for wanted in range(3):
        tensors = list(case.tensors(dtype))
        tensors[wanted].requires_grad_()
        native(*tensors, **case.settings).backward(grad_output)
        assert torch.equal(tensors[wanted].grad, expected[wanted])
        assert all(t.grad is None for i, t in enumerate(tensors) if i != wanted)


@pytest.mark.parametrize("spread", [0.0, 0.3, 8.0, 100.0])
def test_native_equals_the_reference_however_far_the_offsets_reach(native, spread):
    case = Case(height=11, width=10, group_channels=16, groups=3)
    tensors, grad_output = case.tensors(spread=spread), case.grad_output()
    actual = run(native, tensors, grad_output, case.settings)
    expected = run(ops_dcnv3.dcnv3_reference, tensors, grad_output, case.settings)
    assert_all_close(actual, expected, tolerance=1e-10)
    assert actual[0].abs().max() > 0
