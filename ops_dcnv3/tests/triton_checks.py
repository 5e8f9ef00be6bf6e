"""Triton's kernels against the oracle, on a CPU; run by test_triton.py in a process of its own.

Triton decides on its import whether it compiles or interprets. So this file is no `test_*.py`: it
needs OPS_DCNV3_BACKEND=triton and TRITON_INTERPRET=1, with which `ops_dcnv3.dcnv3` runs the kernels
in Triton's interpreter.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from dcnv3_cases import Case, assert_all_close, deterministic_algorithms, run, run_oracle
from test_native import compare

import ops_dcnv3
from ops_dcnv3 import ops, triton_ops

SMALL = Case(batch=1, height=3, width=4, group_channels=4)
CASES = [
    SMALL,
    replace(SMALL, batch=0),
    replace(SMALL, batch=3, height=1, width=1, group_channels=16),
    *(replace(SMALL, group_channels=channels) for channels in (1, 7, 16, 33)),
    replace(SMALL, groups=1, group_channels=257),
    replace(SMALL, groups=5, softmax=True),
    replace(SMALL, kernel_size=1, padding=0),
    replace(SMALL, kernel_size=(2, 3), softmax=True),
    replace(SMALL, kernel_size=(3, 5), padding=(1, 2), remove_center=True, softmax=True),
    replace(SMALL, kernel_size=7, padding=3, groups=1),
    replace(SMALL, height=7, stride=(3, 2), padding=(0, 2)),
    replace(SMALL, height=6, dilation=(2, 1), stride=(1, 2), padding=(3, 0), softmax=True),
    replace(SMALL, offset_scale=0.3, remove_center=True),
    replace(SMALL, offset_scale=2.0, softmax=True),
]
ROUGH_CASES = [
    replace(SMALL, group_channels=7),
    replace(SMALL, group_channels=16, groups=3, softmax=True, offset_scale=2.0),
]
DETERMINISTIC_CASES = [
    replace(SMALL, height=2, width=3, groups=1, softmax=True),
    replace(SMALL, batch=2, height=3, width=2, kernel_size=(1, 2), padding=0, group_channels=3),
    # nine rows in eight shares
    Case(batch=1, height=9, width=1, groups=1, group_channels=2, kernel_size=1, padding=0),
]
LOW_PRECISION = (torch.float32, torch.bfloat16, torch.float16)


def assert_equals_the_oracle(case: Case) -> None:
    """Output and gradients in float64."""
    tensors, grad_output = case.tensors(), case.grad_output()
    actual = run(ops_dcnv3.dcnv3, tensors, grad_output, case.settings)
    assert_all_close(actual, run_oracle(tensors, grad_output, case), tolerance=1e-12)


def test_the_kernels_of_triton_are_what_runs():
    info = ops_dcnv3.extension_info()
    assert info["backends"] == ("triton", "reference")
    assert "OPS_DCNV3_BACKEND=triton" in info["missing"]["cpu"]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_kernels_equal_the_oracle_in_float64(case):
    assert_equals_the_oracle(case)


@pytest.mark.parametrize("dtype", LOW_PRECISION, ids=lambda d: str(d)[6:])
@pytest.mark.parametrize("case", ROUGH_CASES, ids=str)
def test_the_kernels_are_as_exact_as_pytorch(case, dtype):
    compare(ops_dcnv3.dcnv3, case, case.tensors(dtype))


@pytest.mark.parametrize("dtype", LOW_PRECISION[1:], ids=lambda d: str(d)[6:])
@pytest.mark.parametrize("float32_mask", [False, True])
def test_float32_offsets_go_with_a_16_bit_input(dtype, float32_mask):
    case = replace(SMALL, softmax=True)
    image, offset, mask = case.tensors(torch.float32)
    tensors = (image.to(dtype), offset, mask if float32_mask else mask.to(dtype))
    compare(ops_dcnv3.dcnv3, case, tensors)


@pytest.mark.parametrize("threads", [2, 8, 32])
def test_blocks_of_any_size_have_their_tails(monkeypatch, threads):
    """15 pixels in blocks of 1, 4 or 16."""
    monkeypatch.setattr(triton_ops, "THREADS", threads)
    case = replace(SMALL, width=6, groups=1, kernel_size=(1, 2), padding=0, softmax=True)
    assert_equals_the_oracle(case)


def test_tensors_too_large_for_int32_get_int64_indices(monkeypatch):
    monkeypatch.setattr(triton_ops, "INT32_LIMIT", 1)
    assert_equals_the_oracle(replace(SMALL, batch=2, softmax=True))
    with deterministic_algorithms():
        assert_equals_the_oracle(DETERMINISTIC_CASES[1])


def test_the_packed_operator_takes_slices_and_padding():
    """Of the padding it reads nothing; the gradient there is zero."""
    case = replace(SMALL, softmax=True)
    image, offset, mask = case.tensors()
    expected = run_oracle((image, offset, mask), case.grad_output(), case)
    padding = torch.full((*mask.shape[:3], 3), torch.nan, dtype=mask.dtype)
    wide = torch.cat([padding, offset, mask, padding], -1)
    packed = wide[..., 3:].detach().requires_grad_()
    output = ops.dcnv3_packed(image.requires_grad_(), packed, case.static_arguments, True)
    grads = torch.autograd.grad(output, (image, packed), case.grad_output())
    parts = grads[1].split([offset.shape[3], mask.shape[3], 3], -1)
    assert_all_close((output, grads[0], *parts[:2]), expected, tolerance=1e-12)
    assert torch.equal(parts[2], torch.zeros_like(padding))


@pytest.mark.parametrize("case", DETERMINISTIC_CASES, ids=str)
def test_the_deterministic_way_equals_the_oracle(monkeypatch, case):
    calls = []
    scatter = triton_ops._Launch.scatter

    def spy(launch, grad_output):
        calls.append(grad_output.shape)
        return scatter(launch, grad_output)

    monkeypatch.setattr(triton_ops._Launch, "scatter", spy)
    with deterministic_algorithms():
        assert_equals_the_oracle(case)
    assert len(calls) == 1
    assert_equals_the_oracle(case)
    assert len(calls) == 1


@pytest.mark.parametrize("shares", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=lambda d: str(d)[6:])
def test_the_deterministic_way_gives_the_same_bits_again(monkeypatch, shares, dtype):
    monkeypatch.setattr(triton_ops, "MAX_SHARES", shares)
    case = DETERMINISTIC_CASES[0]
    tensors, grad_output = case.tensors(dtype), case.grad_output(dtype)
    with deterministic_algorithms():
        results = [run(ops_dcnv3.dcnv3, tensors, grad_output, case.settings) for _ in range(2)]
        compare(ops_dcnv3.dcnv3, case, tensors)
    assert all(torch.equal(*pair) for pair in zip(*results, strict=True))


def test_tensors_that_do_not_fit_each_other_are_refused_before_a_kernel_runs():
    image, offset, mask = SMALL.tensors()
    static = (*SMALL.static_arguments, False)
    for tensors in (
        (image, offset[..., :-2], mask),
        (image, offset, mask[..., :-1]),
        (image, offset, mask[:, :-1]),
        (image[..., :-1], offset, mask),
    ):
        with pytest.raises(RuntimeError, match="shapes"):
            torch.ops.ops_dcnv3.dcnv3(*tensors, *static)
    with pytest.raises(RuntimeError, match="grad_output"):
        torch.ops.ops_dcnv3.dcnv3_backward(image[:, :-1], image, offset, mask, *static, False)
