"""Offsets that are not finite or far outside, NaN in images and weights, infinite gradients.

The rule: a point that is not strictly inside (-1, H) x (-1, W) contributes nothing and gets no
gradient, and no offset makes the operator read or write outside its tensors.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from dcnv3_cases import Case
from torch import Tensor

import ops_dcnv3

from .compare import DTYPES, assert_within, name_of, off_device, reference_results
from .numerics import run
from .table import add

VALUES = (math.nan, math.inf, -math.inf, 1e30, -1e30, 2.0**31, -(2.0**31), 2.0**63, 1e6)
CASE = Case(batch=2, height=6, width=7, groups=2, group_channels=16)  # the fast path's channels
ODD = Case(batch=2, height=6, width=7, groups=2, group_channels=5, softmax=True)
POINT = (1, 3, 2, 1, 4)  # n, y, x, g, p


def points_of(tensor: Tensor, case: Case) -> Tensor:
    """View of offsets as (N, Ho, Wo, G, P, 2), of weights as (N, Ho, Wo, G, P)."""
    num_points = case.static_arguments.num_points
    shape = (*tensor.shape[:3], case.groups, num_points)
    return (
        tensor.view(*shape, -1) if tensor.shape[-1] > math.prod(shape[3:]) else tensor.view(shape)
    )


def one_hostile_point(device: torch.device, *, case: Case, dtype: torch.dtype) -> None:
    """Only that point is missing: the results are those with the point far away."""
    grad_output = case.grad_output(dtype)
    for value in VALUES:
        for channel in (0, 1, slice(None)):
            image, offset, mask = case.tensors(dtype)
            points_of(offset, case)[(*POINT, channel)] = value
            away = offset.clone()
            points_of(away, case)[(*POINT, slice(None))] = 1000.0
            actual = run(
                [t.to(device) for t in (image, offset, mask)], grad_output.to(device), case
            )
            actual = off_device(actual)
            assert points_of(actual[2], case)[POINT].abs().max() == 0, f"{value}: grad_offset"
            doubles = [t.double() for t in (image, away, mask)]
            exact = reference_results(doubles, grad_output.double(), case)
            bounds = [
                torch.tensor(1e-10)
                if dtype == torch.float64
                else 8 * torch.finfo(dtype).eps * truth.abs().max()
                for truth in exact
            ]
            assert_within(actual, (*exact, *bounds), (image, offset, mask))


def hostile_everywhere(device: torch.device, *, case: Case, dtype: torch.dtype) -> None:
    """Every offset hostile: all results finite, and zero where no point can contribute."""
    image, offset, mask = case.tensors(dtype)
    grad_output = case.grad_output(dtype).to(device)
    for value in (*VALUES, -1.0, 6.0):
        filled = torch.full(offset.shape, value, dtype=torch.float64).to(dtype)
        results = off_device(run([t.to(device) for t in (image, filled, mask)], grad_output, case))
        assert all(torch.isfinite(r).all() for r in results), f"offsets of {value}"
        if not math.isfinite(value) or abs(value) > 100:
            assert all(r.abs().max() == 0 for r in results), f"offsets of {value}"


def bad_pixel(device: torch.device, *, case: Case, dtype: torch.dtype) -> None:
    """A pixel of NaN or infinity reaches the outputs that sample it, and no other."""
    image, offset, mask = case.tensors(dtype)
    points_of(offset, case)[:, 4:] += 64  # these rows sample nothing at all
    grad_output = case.grad_output(dtype)
    given = [t.to(device) for t in (image, offset, mask)]
    good = off_device(run(given, grad_output.to(device), case))
    for row, column in ((0, 0), (2, 3), (5, 6)):
        bad = image.clone()
        bad[1, row, column] = math.nan
        # by the reference in float64: the outputs that change at all
        exact = [image.double(), offset.double(), mask.double()]
        clean = ops_dcnv3.dcnv3_reference(*exact, **case.settings)
        dirty = ops_dcnv3.dcnv3_reference(bad.double(), *exact[1:], **case.settings)
        hit = (clean != dirty).unflatten(-1, (case.groups, -1)).any(-1)
        assert hit.any() and not hit.all()
        actual = off_device(run([bad.to(device), *given[1:]], grad_output.to(device), case))
        shape = (*hit.shape, -1)
        for index in (0, 2, 3):  # grad_input does not depend on the image
            before, after = good[index].view(shape), actual[index].view(shape)
            assert torch.equal(before[~hit], after[~hit]), f"result {index}: NaN spread"
            assert not torch.isfinite(after[hit]).all(-1).any(), f"result {index}: NaN was lost"
        assert torch.isfinite(actual[1]).all()


def bad_weight(device: torch.device, *, case: Case, dtype: torch.dtype) -> None:
    """A NaN among the weights or logits stays in its pixel and group."""
    image, offset, mask = case.tensors(dtype)
    bad = mask.clone()
    points_of(bad, case)[POINT] = math.nan
    with torch.no_grad():
        good_output, bad_output = (
            ops_dcnv3.dcnv3(*(t.to(device) for t in (image, offset, m)), **case.settings).cpu()
            for m in (mask, bad)
        )
    hit = torch.zeros((*mask.shape[:3], case.groups), dtype=torch.bool)
    hit[POINT[:4]] = True
    shape = (*hit.shape, -1)
    assert torch.equal(good_output.view(shape)[~hit], bad_output.view(shape)[~hit])
    assert bad_output.view(shape)[hit].isnan().all()


def extreme_logits(device: torch.device, *, dtype: torch.dtype) -> None:
    """A softmax of large logits and of minus infinity is finite, and so is its gradient."""
    case = Case(height=4, width=4, group_channels=16, softmax=True)
    image, offset, mask = case.tensors(dtype)
    mask = mask * 1e3
    points_of(mask, case)[..., 0] = -math.inf
    given = [t.to(device) for t in (image, offset, mask)]
    results = run(given, case.grad_output(dtype).to(device), case)
    assert all(torch.isfinite(r).all() for r in results)
    assert points_of(results[3], case)[..., 0].abs().max() == 0
    assert results[0].abs().max() > 0


def infinite_gradient(device: torch.device, *, case: Case, dtype: torch.dtype) -> None:
    """As an overflowing loss scale gives it: seen where it belongs, nowhere else."""
    image, offset, mask = case.tensors(dtype)
    points_of(offset, case)[..., 2, :] = 64  # contributes nothing, so 0 * inf must not appear
    grad_output = case.grad_output(dtype)
    grad_output[0, 1, 2, 3] = math.inf
    given = (image, offset, mask)
    actual = off_device(run([t.to(device) for t in given], grad_output.to(device), case))
    expected = reference_results(given, grad_output, case)
    for ours, theirs in zip(actual[1:], expected[1:], strict=True):
        assert not torch.isfinite(theirs).all()
        assert torch.equal(torch.isfinite(ours), torch.isfinite(theirs))
    assert points_of(actual[2], case)[..., 2, :].abs().max() == 0


for _dtype in DTYPES:
    for _case in (CASE, ODD):
        for _function in (
            one_hostile_point,
            hostile_everywhere,
            bad_pixel,
            bad_weight,
            infinite_gradient,
        ):
            add(
                f"hostile/{_function.__name__}/{name_of(_dtype)}/{_case}",
                partial(_function, case=_case, dtype=_dtype),
                sanitize=_function is hostile_everywhere,
            )
    add(f"hostile/extreme_logits/{name_of(_dtype)}", partial(extreme_logits, dtype=_dtype))
