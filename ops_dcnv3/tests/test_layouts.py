"""Tensors whose memory is not in order: slices of a packed one, permuted, expanded, shifted."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from dcnv3_cases import Case, run
from torch import Tensor

CASES = [
    Case(height=6, width=7, group_channels=16),
    Case(height=6, width=7, groups=3, group_channels=7, softmax=True),
]
DTYPES = [torch.float64, torch.float32, torch.bfloat16]


def channels_first(t: Tensor) -> Tensor:
    """The same values, stored (N, C, H, W)."""
    return t.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)


def batch_last(t: Tensor) -> Tensor:
    """The same values, stored (H, W, C, N)."""
    return t.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2)


def every_second_channel(t: Tensor) -> Tensor:
    """The same values, at every second element of a wider tensor."""
    return torch.stack([t, torch.full_like(t, torch.nan)], -1).flatten(-2)[..., ::2]


def cropped(t: Tensor) -> Tensor:
    """The same values, cut out of a larger tensor that is NaN elsewhere."""
    return torch.nn.functional.pad(t, (1, 2, 1, 2, 2, 1), value=torch.nan)[:, 2:-1, 1:-2, 1:-2]


def odd_address(t: Tensor) -> Tensor:
    """The same values, contiguous but starting one element after an aligned address."""
    storage = torch.empty(t.numel() + 1, dtype=t.dtype)
    shifted = storage[1:].view(t.shape)
    return shifted.copy_(t)


LAYOUTS = [channels_first, batch_last, every_second_channel, cropped, odd_address]


def run_as_given(operator, tensors, grad_output, settings) -> tuple[Tensor, ...]:
    """As `run`, but without a copy that would put the memory in order."""
    leaves = [t.detach().requires_grad_() for t in tensors]
    output = operator(*leaves, **settings)
    return (output.detach(), *torch.autograd.grad(output, leaves, grad_output))


def assert_same(operator, tensors, grad_output, case: Case) -> None:
    """Bitwise the results of the same values in ordered memory."""
    ordered = tuple(t.contiguous() for t in tensors)
    expected = run(operator, ordered, grad_output.contiguous(), case.settings)
    actual = run_as_given(operator, tensors, grad_output, case.settings)
    for ours, theirs in zip(actual, expected, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d)[6:])
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("index", range(4), ids=["input", "offset", "mask", "grad_output"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda f: f.__name__)
def test_a_tensor_in_any_layout_gives_the_same_result(
    operator, layout: Callable, index: int, case: Case, dtype
):
    tensors = [*case.tensors(dtype), case.grad_output(dtype)]
    before = tensors[index].clone()
    tensors[index] = layout(tensors[index])
    assert torch.equal(tensors[index], before)
    assert_same(operator, tuple(tensors[:3]), tensors[3], case)
    assert torch.equal(tensors[index], before)  # and nothing was written to it


@pytest.mark.parametrize("case", CASES, ids=str)
def test_offset_and_mask_may_be_slices_of_one_packed_projection(operator, case):
    image, offset, mask = case.tensors()
    packed = torch.cat([offset, mask, torch.full_like(mask[..., :5], torch.nan)], -1)
    offset_slice, mask_slice, _ = packed.split([offset.shape[-1], mask.shape[-1], 5], -1)
    assert not offset_slice.is_contiguous() and not mask_slice.is_contiguous()
    assert_same(operator, (image, offset_slice, mask_slice), case.grad_output(), case)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_packed_projection_gets_both_gradients(operator, case):
    image, offset, mask = case.tensors()
    expected = run(operator, (image, offset, mask), case.grad_output(), case.settings)
    packed = torch.cat([offset, mask], -1).requires_grad_()
    parts = packed.split([offset.shape[-1], mask.shape[-1]], -1)
    operator(image, *parts, **case.settings).backward(case.grad_output())
    assert torch.equal(packed.grad, torch.cat([expected[2], expected[3]], -1))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_expanded_tensors_are_read_in_place(operator, case):
    image, offset, mask = case.tensors()
    shared = (image[:1].expand_as(image), offset[:, :1].expand_as(offset), mask[:1].expand_as(mask))
    upstream = case.grad_output()[:, :, :, :1].expand(case.grad_output().shape)
    assert_same(operator, shared, upstream, case)


def test_the_output_is_contiguous_channels_last(operator):
    case = CASES[0]
    image, offset, mask = case.tensors()
    assert operator(channels_first(image), offset, mask, **case.settings).is_contiguous()


def test_one_tensor_may_serve_as_input_offset_and_mask(operator):
    """G * P * 2 = G * P = C has no solution, but input and mask may share memory: P = D."""
    case = Case(height=4, width=4, groups=2, group_channels=9)
    _, offset, mask = case.tensors()
    assert_same(operator, (mask, offset, mask), case.grad_output(), case)
