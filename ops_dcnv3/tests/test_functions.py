"""The original's import paths and positional argument lists: a project swaps the wheel and runs."""

from __future__ import annotations

import inspect

import pytest
import torch
from dcnv3_cases import Case, assert_all_close, run

import ops_dcnv3
from ops_dcnv3.functions import DCNv3Function, dcnv3_core_pytorch
from ops_dcnv3.modules import DCNv3, DCNv3_pytorch

CASES = [
    Case(group_channels=16),
    Case(height=9, kernel_size=(3, 5), stride=(2, 1), padding=(1, 2), dilation=(2, 1)),
    Case(groups=3, group_channels=7, offset_scale=2.0, remove_center=True),
]
POSITIONAL = [
    "input",
    "offset",
    "mask",
    "kernel_h",
    "kernel_w",
    "stride_h",
    "stride_w",
    "pad_h",
    "pad_w",
    "dilation_h",
    "dilation_w",
    "group",
    "group_channels",
    "offset_scale",
]


def positional(case: Case) -> list:
    """The numbers behind the three tensors, up to offset_scale."""
    g = case.geometry
    pairs = (*g.kernel_size, *g.stride, *g.padding, *g.dilation)
    return [*pairs, g.groups, case.group_channels, g.offset_scale]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("im2col_step", [1, 2, 256])
def test_the_original_function_is_the_operator(case, im2col_step):
    numbers = [*positional(case), im2col_step, case.remove_center]
    expected = run(ops_dcnv3.dcnv3, case.tensors(), case.grad_output(), case.settings)
    actual = run(
        lambda *t: DCNv3Function.apply(*t, *numbers), case.tensors(), case.grad_output(), {}
    )
    assert_all_close(actual, expected, tolerance=1e-13)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_original_pytorch_function_is_the_reference(case):
    numbers = [*positional(case), case.remove_center]
    expected = run(ops_dcnv3.dcnv3_reference, case.tensors(), case.grad_output(), case.settings)
    actual = run(
        lambda *t: dcnv3_core_pytorch(*t, *numbers), case.tensors(), case.grad_output(), {}
    )
    assert_all_close(actual, expected, tolerance=1e-13)


def test_calls_of_version_1_0_without_remove_center_work():
    case = CASES[0]
    expected = ops_dcnv3.dcnv3(*case.tensors(), **case.settings)
    assert torch.equal(DCNv3Function.apply(*case.tensors(), *positional(case), 256), expected)
    actual = dcnv3_core_pytorch(*case.tensors(), *positional(case))
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


def test_a_batch_that_im2col_step_does_not_divide_works():
    case = Case(batch=3)
    output = DCNv3Function.apply(*case.tensors(), *positional(case), 2)
    assert torch.equal(output, ops_dcnv3.dcnv3(*case.tensors(), **case.settings))


@pytest.mark.parametrize("function", [DCNv3Function.apply, dcnv3_core_pytorch])
def test_the_names_of_the_arguments_are_the_original_ones(function):
    names = list(inspect.signature(function).parameters)
    tail = ["remove_center"] if function is dcnv3_core_pytorch else ["im2col_step", "remove_center"]
    assert names == [*POSITIONAL, *tail]


@pytest.mark.parametrize("layer", [DCNv3, DCNv3_pytorch])
def test_the_original_argument_order_of_the_layers_works(layer):
    module = layer(32, 3, 5, 1, 1, 1, 2, 2.0, "GELU", "LN", True, False)
    assert module.dw_conv[0].kernel_size == (5, 5)
    assert module.offset.out_features == 2 * 9 * 2
    assert module(torch.randn(1, 4, 5, 32)).shape == (1, 4, 5, 32)


@pytest.mark.parametrize("function", [DCNv3Function.apply, dcnv3_core_pytorch])
def test_group_channels_must_fit(function):
    case = Case(group_channels=8)
    numbers = positional(case)
    numbers[9] = 4
    with pytest.raises(ValueError, match="expected group \\* group_channels = C = 16, got 2 \\* 4"):
        function(*case.tensors(), *numbers)
