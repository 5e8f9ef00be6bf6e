"""Tensors whose memory is not in order, at odd addresses, or packed with padding."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from dcnv3_cases import Case
from torch import Tensor

import ops_dcnv3
from ops_dcnv3 import ops

from .compare import allowed_errors, assert_within, make_tensors, name_of
from .table import add

CASE = Case(batch=2, height=9, width=11, groups=4, group_channels=16, softmax=True)
ODD = Case(batch=2, height=6, width=7, groups=3, group_channels=7)
DTYPES = (torch.float32, torch.float16)


def channels_first(t: Tensor) -> Tensor:
    """Stored (N, C, H, W)."""
    return t.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)


def every_second_channel(t: Tensor) -> Tensor:
    """At every second element of a wider tensor that is NaN elsewhere."""
    return torch.stack([t, torch.full_like(t, torch.nan)], -1).flatten(-2)[..., ::2]


def cropped(t: Tensor) -> Tensor:
    """Cut out of a larger tensor that is NaN elsewhere."""
    return F.pad(t, (1, 2, 1, 2, 2, 1), value=torch.nan)[:, 2:-1, 1:-2, 1:-2]


def odd_address(t: Tensor) -> Tensor:
    """Contiguous, but one element after an aligned address: 16-byte loads are forbidden."""
    storage = torch.full((t.numel() + 1,), torch.nan, dtype=t.dtype, device=t.device)
    return storage[1:].view(t.shape).copy_(t)


def expanded(t: Tensor) -> Tensor:
    """The first image for all of them, with a stride of zero."""
    return t[:1].expand_as(t)


LAYOUTS = (channels_first, every_second_channel, cropped, odd_address)


def run_as_given(tensors, grad_output: Tensor, case: Case) -> tuple[Tensor, ...]:
    """Output and gradients, without a copy that would put the memory in order."""
    leaves = [t.detach().requires_grad_() for t in tensors]
    output = ops_dcnv3.dcnv3(*leaves, **case.settings)
    return (output.detach(), *torch.autograd.grad(output, leaves, grad_output))


def any_layout(device: torch.device, *, case: Case, dtype: torch.dtype) -> None:
    """Each argument in each layout, then all of them at once: the same numbers."""
    tensors, grad_output = make_tensors(case, device, dtype)
    given = [*tensors, grad_output]
    bounds = allowed_errors(tensors, grad_output, case)
    for layout in LAYOUTS:
        for changed in ((0,), (1,), (2,), (3,), (0, 1, 2, 3)):
            arguments = [layout(t) if i in changed else t for i, t in enumerate(given)]
            actual = run_as_given(arguments[:3], arguments[3], case)
            try:
                assert_within(actual, bounds, tensors)
            except AssertionError as error:
                raise AssertionError(f"{layout.__name__} of arguments {changed}") from error
            for before, after in zip(given, arguments, strict=True):
                assert torch.equal(before, after), f"{layout.__name__}: wrote to its arguments"
    shared = tuple(expanded(t) for t in tensors)
    actual = run_as_given(shared, grad_output, case)
    assert_within(actual, allowed_errors(shared, grad_output, case), tensors)


def packed(
    device: torch.device, *, case: Case, dtype: torch.dtype, points_dtype: torch.dtype
) -> None:
    """The entry of the module: one tensor of offsets, weights and padding, its memory as it comes.

    The padding is NaN, which must reach nothing; its gradient is zero.
    """
    tensors, grad_output = make_tensors(case, device, dtype, points_dtype=points_dtype)
    image, offset, mask = tensors
    bounds = allowed_errors(tensors, grad_output, case)
    used = offset.shape[-1] + mask.shape[-1]
    for padding in (0, -used % 8 or 8, 5):
        joint = F.pad(torch.cat([offset, mask], -1), (0, padding), value=torch.nan)
        for layout in (torch.clone, odd_address, channels_first, every_second_channel):
            leaves = [image.clone().requires_grad_(), layout(joint).requires_grad_()]
            output = ops.dcnv3_packed(*leaves, case.static_arguments, case.softmax)
            grad_image, grad_joint = torch.autograd.grad(output, leaves, grad_output)
            parts = grad_joint.split([offset.shape[-1], mask.shape[-1], padding], -1)
            try:
                assert_within((output.detach(), grad_image, *parts[:2]), bounds, tensors)
                assert not parts[2].any(), "the padding has a gradient"
            except AssertionError as error:
                text = f"padding {padding}, {layout.__name__}"
                raise AssertionError(text) from error


for _case in (CASE, ODD):
    for _dtype in DTYPES:
        _function = partial(any_layout, case=_case, dtype=_dtype)
        add(f"layouts/{name_of(_dtype)}/{_case}", _function)
    for _dtype, _points in ((torch.float32,) * 2, (torch.float16,) * 2, (torch.bfloat16,) * 2):
        _function = partial(packed, case=_case, dtype=_dtype, points_dtype=_points)
        add(f"packed/{name_of(_dtype)}/{_case}", _function)
    _function = partial(packed, case=_case, dtype=torch.bfloat16, points_dtype=torch.float32)
    add(f"packed/bfloat16-float32-offsets/{_case}", _function)
