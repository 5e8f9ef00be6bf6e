"""Values that break operators: offsets not finite or exactly on the border, NaN pixels and weights.

The rule: a point whose position is not strictly inside (-1, H) x (-1, W), which NaN and infinity
never are, contributes nothing and gets no gradient; everything else is bitwise what it would be
without that point.
"""

from __future__ import annotations

import math

import dcnv3_oracle as oracle
import numpy as np
import pytest
import torch
from dcnv3_cases import Case, assert_all_close, run, run_oracle

import ops_dcnv3
from ops_dcnv3 import reference

HOSTILE = [math.nan, math.inf, -math.inf, 1e30, -1e30, 2.0**31, -(2.0**31), 2.0**63, 1e6]
CASE = Case(batch=2, height=6, width=7, groups=2, group_channels=16)
POINT = (1, 3, 2, 1, 4)  # n, y, x, g, p
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]

dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d)[6:])


def offset_view(offset: torch.Tensor, case: Case = CASE) -> torch.Tensor:
    """Offsets as (N, Ho, Wo, G, P, 2), sharing memory."""
    return offset.view(*offset.shape[:3], case.groups, -1, 2)


def place(
    offset: torch.Tensor, case: Case, *, px: float | None = None, py: float | None = None
) -> None:
    """Move `POINT` to px and / or py, exactly where these are integers."""
    grid = oracle.positions(np.zeros(offset.shape), case.geometry)[POINT]
    for channel, target in ((0, px), (1, py)):
        if target is not None:
            offset_view(offset, case)[(*POINT, channel)] = (
                target - grid[channel]
            ) / case.offset_scale


def assert_only_the_point_is_missing(operator, tensors, grad_output, case: Case) -> None:
    """Results equal those with zero weight at `POINT`, bitwise, and it gets no gradient."""
    image, offset, mask = tensors
    results = run(operator, tensors, grad_output, case.settings)
    benign = offset.clone()
    offset_view(benign, case)[POINT] = 0.25
    silenced = mask.clone()
    silenced.view(*mask.shape[:3], case.groups, -1)[POINT] = 0
    expected = run(operator, (image, benign, silenced), grad_output, case.settings)
    assert torch.equal(results[0], expected[0])
    assert torch.equal(results[1], expected[1])
    grad_offset, grad_mask = offset_view(results[2].clone(), case), results[3].clone()
    grad_mask = grad_mask.view(*mask.shape[:3], case.groups, -1)
    assert grad_offset[POINT].abs().max() == 0
    assert grad_mask[POINT] == 0
    others = torch.ones(grad_mask.shape, dtype=torch.bool)
    others[POINT] = False
    assert torch.equal(grad_offset[others], offset_view(expected[2], case)[others])
    assert torch.equal(grad_mask[others], expected[3].view(grad_mask.shape)[others])


@dtypes
@pytest.mark.parametrize("channel", [0, 1, slice(None)], ids=["x", "y", "both"])
@pytest.mark.parametrize("value", HOSTILE)
def test_a_point_that_is_not_finite_or_far_outside_contributes_nothing(
    operator, dtype, channel, value
):
    image, offset, mask = CASE.tensors(dtype)
    offset_view(offset)[(*POINT, channel)] = value
    tensors = (image, offset, mask)
    assert_only_the_point_is_missing(operator, tensors, CASE.grad_output(dtype), CASE)


@pytest.mark.parametrize("axis, target", [("px", -1), ("py", -1), ("px", 7), ("py", 6)])
def test_a_point_exactly_on_the_outer_border_contributes_nothing(operator, axis, target):
    tensors = CASE.tensors()
    place(tensors[1], CASE, px=3.0, py=3.0)
    place(tensors[1], CASE, **{axis: float(target)})
    where = oracle.positions(tensors[1].numpy(), CASE.geometry)[POINT]
    assert where[int(axis == "py")] == target
    assert_only_the_point_is_missing(operator, tensors, CASE.grad_output(), CASE)


@pytest.mark.parametrize("px", [-1 + 1e-9, -0.5, 0.0, 6.0, 7 - 1e-9])
@pytest.mark.parametrize("py", [-1 + 1e-9, -0.5, 0.0, 5.0, 6 - 1e-9])
def test_points_at_the_border_equal_the_oracle(operator, px, py):
    case = Case(batch=2, height=6, width=7, groups=2, group_channels=3)
    tensors, grad_output = case.tensors(), case.grad_output()
    place(tensors[1], case, px=px, py=py)
    expected = run_oracle(tensors, grad_output, case)
    assert_all_close(run(operator, tensors, grad_output, case.settings), expected, tolerance=1e-9)


def test_zero_offsets_give_the_derivative_from_the_right(operator):
    """A fresh layer samples at integers, where the slope is that of the cell to the right."""
    case = Case(group_channels=3)
    image, offset, mask = case.tensors()
    tensors, grad_output = (image, torch.zeros_like(offset), mask), case.grad_output()
    expected = run_oracle(tensors, grad_output, case)
    assert_all_close(run(operator, tensors, grad_output, case.settings), expected, tolerance=1e-10)


@dtypes
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e30, -1.0, 6.0])
def test_hostile_offsets_everywhere_give_zero_or_finite_results(operator, dtype, value):
    image, offset, mask = CASE.tensors(dtype)
    offset = torch.full(offset.shape, value, dtype=torch.float64).to(dtype)
    results = run(operator, (image, offset, mask), CASE.grad_output(dtype), CASE.settings)
    assert all(torch.isfinite(r).all() for r in results)
    if not math.isfinite(value) or value > 1e6:
        assert all(r.abs().max() == 0 for r in results)


def touched(case: Case, offset: torch.Tensor, row: int, column: int, n: int) -> np.ndarray:
    """(N, Ho, Wo, G) bool: the outputs with a tap on pixel (row, column) of image n."""
    where = oracle.positions(offset.double().numpy(), case.geometry)
    near = (np.abs(where[..., 0] - column) < 1) & (np.abs(where[..., 1] - row) < 1)
    result = near.any(-1)
    result[np.arange(len(result)) != n] = False
    return result


@dtypes
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("pixel", [(0, 0), (2, 3), (5, 6)])
def test_a_bad_pixel_reaches_only_the_outputs_that_sample_it(operator, dtype, value, pixel):
    image, offset, mask = CASE.tensors(dtype)
    offset[:, 4:] += 64  # rows that sample nothing at all must not meet a stand-in for "outside"
    bad = image.clone()
    bad[1, pixel[0], pixel[1]] = value
    grad_output = CASE.grad_output(dtype)
    good_results = run(operator, (image, offset, mask), grad_output, CASE.settings)
    bad_results = run(operator, (bad, offset, mask), grad_output, CASE.settings)
    hit = torch.from_numpy(touched(CASE, offset, *pixel, n=1))
    assert hit.any() and not hit.all()
    shape = (*hit.shape, -1)
    for index in (0, 2, 3):  # grad_input does not depend on the image
        good, bad_ones = good_results[index].view(shape), bad_results[index].view(shape)
        assert torch.equal(good[~hit], bad_ones[~hit])
        assert not torch.isfinite(bad_ones[hit]).all(-1).any()
    assert torch.equal(good_results[1], bad_results[1])


@dtypes
@pytest.mark.parametrize("softmax", [False, True])
def test_a_nan_weight_stays_in_its_pixel_and_group(operator, dtype, softmax):
    case = Case(height=6, width=7, group_channels=16, softmax=softmax)
    image, offset, mask = case.tensors(dtype)
    place(offset, case, px=3.3, py=2.6)
    bad = mask.clone()
    bad.view(*mask.shape[:3], case.groups, -1)[POINT] = math.nan
    with torch.no_grad():
        good_output = operator(image, offset, mask, **case.settings)
        bad_output = operator(image, offset, bad, **case.settings)
    hit = torch.zeros((*mask.shape[:3], case.groups), dtype=torch.bool)
    hit[POINT[:4]] = True
    shape = (*hit.shape, -1)
    assert torch.equal(good_output.view(shape)[~hit], bad_output.view(shape)[~hit])
    assert bad_output.view(shape)[hit].isnan().all()


@dtypes
def test_softmax_survives_large_and_infinite_logits(operator, dtype):
    case = Case(height=4, width=4, softmax=True)
    image, offset, mask = case.tensors(dtype)
    mask = mask * 1e3
    mask.view(*mask.shape[:3], case.groups, -1)[..., 0] = -math.inf
    results = run(operator, (image, offset, mask), case.grad_output(dtype), case.settings)
    assert all(torch.isfinite(r).all() for r in results)
    first = results[3].view(*mask.shape[:3], case.groups, -1)[..., 0]
    assert first.abs().max() == 0


@dtypes
@pytest.mark.parametrize("logit", [math.nan, -math.inf, math.inf])
@pytest.mark.parametrize("points", ["one logit", "all logits"])
def test_points_all_outside_give_zero_whatever_their_logits_are(operator, dtype, logit, points):
    """A softmax of NaN or of nothing but -inf has no weights, and none is needed there."""
    case = Case(batch=2, height=6, width=7, group_channels=19, softmax=True)
    image, offset, mask = case.tensors(dtype)
    cell = POINT[:4]
    offset_view(offset, case)[cell] = 64
    logits = mask.view(*mask.shape[:3], case.groups, -1)
    logits[cell if points == "all logits" else POINT] = logit
    tensors, grad_output = (image, offset, mask), case.grad_output(dtype)
    results = run(operator, tensors, grad_output, case.settings)
    shape = (*mask.shape[:3], case.groups, -1)
    assert results[0].view(shape)[cell].abs().max() == 0
    assert results[2].view(shape)[cell].abs().max() == 0
    assert all(torch.isfinite(r).all() for r in results[:3])
    mask[:] = torch.nan_to_num(mask, nan=0.0, posinf=1.0, neginf=-1.0)
    benign = run(operator, tensors, grad_output, case.settings)
    assert all(torch.equal(r, b) for r, b in zip(results[:3], benign[:3], strict=True))
    others = torch.ones(shape[:4], dtype=torch.bool)
    others[cell] = False
    assert torch.equal(results[3].view(shape)[others], benign[3].view(shape)[others])


def with_infinite_gradients(case: Case, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """A gradient of the output as after an overflow, and the pixels that have an infinity."""
    grad_output = case.grad_output(dtype)
    grad_output[0, 1, 2, 3] = math.inf
    grad_output[1, 3:5, :, 5] = -math.inf
    grad_output[1, 0, 0] = math.nan
    return grad_output, ~torch.isfinite(grad_output).all(-1)


@dtypes
@pytest.mark.parametrize("softmax", [False, True])
def test_an_infinite_gradient_does_not_reach_points_that_contribute_nothing(
    operator, dtype, softmax
):
    """As a loss scaled too far gives it in float16; 0 * inf would be NaN."""
    case = Case(batch=2, height=6, width=7, group_channels=16, softmax=softmax)
    image, offset, mask = case.tensors(dtype)
    places = offset_view(offset, case)
    places[..., 2, :], places[..., 5, 0], places[1, 3] = 64, math.nan, -64  # every point of a row
    contributes = (places.abs() < 60).all(-1)  # NaN is not
    grad_output, bad = with_infinite_gradients(case, dtype)
    results = run(operator, (image, offset, mask), grad_output, case.settings)
    grad_offset, grad_mask = offset_view(results[2], case), results[3].view(contributes.shape)
    assert grad_offset[~contributes].abs().max() == 0
    assert torch.isfinite(results[2].view(*bad.shape, -1)[~bad]).all()
    assert torch.isfinite(results[3].view(*bad.shape, -1)[~bad]).all()
    assert grad_mask[1, 3].abs().max() == 0  # with a softmax too: no point of these cells counts
    if not softmax:
        assert grad_mask[~contributes].abs().max() == 0


@dtypes
@pytest.mark.parametrize("softmax", [False, True])
def test_an_infinite_gradient_spoils_what_it_spoils_in_the_reference(operator, dtype, softmax):
    """A scaler of losses looks for exactly this: something not finite where it should be."""
    case = Case(batch=2, height=6, width=7, group_channels=16, softmax=softmax)
    tensors = case.tensors(dtype)
    grad_output, _ = with_infinite_gradients(case, dtype)
    results = run(operator, tensors, grad_output, case.settings)
    expected = run(ops_dcnv3.dcnv3_reference, tensors, grad_output, case.settings)
    written_out = reference.backward(grad_output, *tensors, case.static_arguments, softmax)
    for ours, formula, theirs in zip(results[1:], written_out, expected[1:], strict=True):
        assert torch.equal(torch.isfinite(ours), torch.isfinite(theirs))
        assert torch.equal(torch.isfinite(formula), torch.isfinite(theirs))
        assert not torch.isfinite(theirs).all()


@dtypes
def test_the_written_out_gradients_of_points_that_contribute_nothing_are_zero(dtype):
    """The path without kernels: `reference.backward` beside autograd through its forward."""
    case = Case(batch=2, height=6, width=7, group_channels=16)
    image, offset, mask = case.tensors(dtype)
    offset_view(offset, case)[..., 4, :] = 64
    grad_output, _ = with_infinite_gradients(case, dtype)
    _, grad_offset, grad_mask = reference.backward(
        grad_output, image, offset, mask, case.static_arguments, False
    )
    assert offset_view(grad_offset, case)[..., 4, :].abs().max() == 0
    assert grad_mask.view(*mask.shape[:3], case.groups, -1)[..., 4].abs().max() == 0
