"""Gradients by finite differences, the gradient of the logits, and no silent second derivative."""

from __future__ import annotations

import pytest
import torch
from dcnv3_cases import Case, assert_all_close, run
from torch.autograd import gradcheck

TINY = Case(batch=1, height=3, width=3, groups=2, group_channels=2)
FAST_CASES = [
    TINY,
    Case(batch=1, height=3, width=4, groups=1, group_channels=3, softmax=True),
    Case(batch=2, height=3, width=3, groups=1, group_channels=2, remove_center=True),
    Case(batch=1, height=5, width=4, groups=1, group_channels=2, stride=2, offset_scale=2.0),
    Case(batch=1, height=5, width=4, groups=1, group_channels=2, dilation=2, padding=2),
    Case(batch=1, height=4, width=5, groups=1, group_channels=2, kernel_size=(3, 5), softmax=True),
    Case(batch=1, height=3, width=3, groups=1, group_channels=1, kernel_size=1, padding=0),
]
FULL_CASES = [  # every entry of the Jacobian: the time grows with the square of the size
    Case(batch=1, height=2, width=2, groups=2, group_channels=1),
    Case(batch=1, height=2, width=2, groups=1, group_channels=2, softmax=True),
    Case(batch=1, height=3, width=2, groups=1, group_channels=1, stride=2, remove_center=True),
]


def leaves(case: Case) -> tuple[torch.Tensor, ...]:
    """The case's tensors in float64, each wanting its gradient; offsets are off the lattice."""
    return tuple(t.requires_grad_() for t in case.tensors())


@pytest.mark.parametrize(
    "case, fast_mode",
    [*((case, True) for case in FAST_CASES), *((case, False) for case in FULL_CASES)],
    ids=str,
)
def test_gradcheck(operator, case, fast_mode):
    def function(*tensors: torch.Tensor) -> torch.Tensor:
        return operator(*tensors, **case.settings)

    assert gradcheck(function, leaves(case), eps=1e-6, atol=1e-6, fast_mode=fast_mode)


def test_softmax_equals_a_softmax_before_the_operator(operator):
    fused = Case(height=6, width=5, group_channels=16, softmax=True)
    plain = Case(height=6, width=5, group_channels=16)
    tensors, grad_output = fused.tensors(), fused.grad_output()

    def composed(image, offset, logits, **settings):
        mask = logits.unflatten(-1, (fused.groups, -1)).softmax(-1).flatten(-2)
        return operator(image, offset, mask, **settings)

    expected = run(composed, tensors, grad_output, plain.settings)
    assert_all_close(run(operator, tensors, grad_output, fused.settings), expected, tolerance=1e-12)


def test_the_gradient_of_the_logits_sums_to_zero_in_each_group(operator):
    case = Case(height=6, width=5, group_channels=16, softmax=True)
    *_, grad_mask = run(operator, case.tensors(), case.grad_output(), case.settings)
    sums = grad_mask.unflatten(-1, (case.groups, -1)).sum(-1)
    assert grad_mask.abs().max() > 1e-2
    torch.testing.assert_close(sums, torch.zeros_like(sums), rtol=0, atol=1e-12)


@pytest.mark.parametrize("wanted", range(3), ids=["input", "offset", "mask"])
def test_a_second_derivative_raises_instead_of_being_lost(native, wanted):
    tensors = leaves(TINY)
    output = native(*tensors, **TINY.settings)
    (gradient,) = torch.autograd.grad(output.square().sum(), tensors[wanted], create_graph=True)
    with pytest.raises(RuntimeError, match="DCNv3 has no second derivative"):
        gradient.sum().backward()


def test_gradients_accumulate_over_two_calls(operator):
    case = Case()
    expected = run(operator, case.tensors(), case.grad_output(), case.settings)[1:]
    tensors = leaves(case)
    for _ in range(2):
        operator(*tensors, **case.settings).backward(case.grad_output())
    for tensor, once in zip(tensors, expected, strict=True):
        torch.testing.assert_close(tensor.grad, 2 * once, rtol=0, atol=1e-12)


def test_inputs_are_not_changed(operator):
    case = Case(softmax=True)
    tensors, grad_output = leaves(case), case.grad_output()
    before = [t.detach().clone() for t in (*tensors, grad_output)]
    operator(*tensors, **case.settings).backward(grad_output)
    for tensor, copy in zip((*tensors, grad_output), before, strict=True):
        assert torch.equal(tensor, copy)
