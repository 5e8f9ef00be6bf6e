"""The oracle against the original's records and finite differences; the operator against it."""

from __future__ import annotations

import json
from pathlib import Path

import dcnv3_oracle as oracle
import numpy as np
import pytest
import torch
from dcnv3_cases import Case, assert_all_close, run, run_oracle

RECORDS = sorted((Path(__file__).parent / "fixtures" / "parity").glob("*.npz"))
NEAR_LATTICE = 1e-5  # pixels: nearer to an integer coordinate the derivative jumps

SMALL_CASES = [
    Case(batch=1, height=4, width=5, groups=2, group_channels=3),
    Case(batch=1, height=5, width=4, groups=1, group_channels=2, remove_center=True),
    Case(batch=1, height=6, width=5, kernel_size=(3, 5), padding=(1, 2), group_channels=3),
    Case(batch=1, height=6, width=5, kernel_size=(5, 1), padding=(2, 0), group_channels=3),
    Case(batch=1, height=6, width=7, stride=(2, 3), dilation=(2, 1), group_channels=3),
    Case(batch=1, height=4, width=4, padding=(2, 0), offset_scale=0.5, group_channels=3),
    Case(batch=1, height=4, width=4, kernel_size=2, padding=1, group_channels=3),
    Case(batch=1, height=3, width=3, group_channels=2, offset_scale=2.0, softmax=True),
]


def load(
    path: Path,
) -> tuple[Case, tuple[torch.Tensor, ...], torch.Tensor, tuple[torch.Tensor, ...]]:
    """Case, inputs, grad_output and the original's results of one record."""
    with np.load(path) as record:
        params = json.loads(str(record["params"]))
        data = {k: torch.from_numpy(record[k]) for k in record.files if k != "params"}
    batch, height, width, _ = data["input"].shape
    case = Case(
        batch=batch,
        height=height,
        width=width,
        groups=params["group"],
        padding=params["pad"],
        **{k: v for k, v in params.items() if k not in ("group", "pad")},
    )
    inputs = (data["input"], data["offset"], data["mask"])
    names = ("output", "grad_input", "grad_offset", "grad_mask")
    return case, inputs, data["grad_output"], tuple(data[n] for n in names)


def away_from_lattice(case: Case, offset: torch.Tensor) -> torch.Tensor:
    """Mask of grad_offset's elements whose point is not at an integer coordinate."""
    where = oracle.positions(offset.numpy(), case.geometry)
    near = (np.abs(where - np.round(where)) < NEAR_LATTICE).any(-1, keepdims=True)
    return torch.from_numpy(~np.broadcast_to(near, where.shape).reshape(offset.shape))


def test_the_parity_records_are_there():
    assert len(RECORDS) == 13


@pytest.mark.parametrize("path", RECORDS, ids=lambda p: p.stem)
def test_the_oracle_equals_the_original(path):
    case, inputs, grad_output, expected = load(path)
    actual = list(run_oracle(inputs, grad_output, case))
    keep = away_from_lattice(case, inputs[1])
    assert keep.float().mean() > 0.5
    actual[2], truth = actual[2] * keep, expected[2] * keep
    assert_all_close(tuple(actual), (*expected[:2], truth, expected[3]), tolerance=1e-4)


@pytest.mark.parametrize("path", RECORDS, ids=lambda p: p.stem)
def test_the_operator_equals_the_original_and_the_oracle(path, operator):
    case, inputs, grad_output, expected = load(path)
    results = run(operator, inputs, grad_output, case.settings)
    assert_all_close(results, run_oracle(inputs, grad_output, case), tolerance=1e-10)
    keep = away_from_lattice(case, inputs[1])
    truth = (expected[0], expected[1], expected[2] * keep, expected[3])
    assert_all_close((*results[:2], results[2] * keep, results[3]), truth, tolerance=1e-4)


@pytest.mark.parametrize("case", SMALL_CASES, ids=str)
def test_the_reference_equals_the_oracle(case, operator):
    tensors, grad_output = case.tensors(), case.grad_output()
    expected = run_oracle(tensors, grad_output, case)
    assert_all_close(run(operator, tensors, grad_output, case.settings), expected, tolerance=1e-10)


@pytest.mark.parametrize("case", SMALL_CASES[:5], ids=str)
def test_the_gradients_of_the_oracle_equal_finite_differences(case):
    image, offset, mask = (t.numpy() for t in case.tensors())
    upstream = case.grad_output().numpy()
    step = 1e-6
    gradients = oracle.backward(image, offset, mask, upstream, case.geometry)
    rng = np.random.default_rng(3)
    for index, gradient in enumerate(gradients):
        direction = rng.standard_normal(gradient.shape)
        sides = []
        for sign in (1, -1):
            moved = [image, offset, mask]
            moved[index] = moved[index] + sign * step * direction
            sides.append((oracle.forward(*moved, case.geometry) * upstream).sum())
        slope = (sides[0] - sides[1]) / (2 * step)
        np.testing.assert_allclose((gradient * direction).sum(), slope, rtol=1e-6, atol=1e-6)
