"""Rounding: what the kernels store is what PyTorch's own conversion gives.

A kernel of 1 x 1 at offset zero on images of one pixel multiplies: with an image of ones the output
is the float32 mask, rounded to the dtype of the image; with a mask of ones it is the image.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from dcnv3_cases import Operator
from torch import Tensor

LOW_PRECISION = [torch.bfloat16, torch.float16]
CHANNELS = [1, 7, 16, 45]  # loops over single channels and vectors of every width

low_precision = pytest.mark.parametrize("dtype", LOW_PRECISION, ids=lambda d: str(d)[6:])


def every_value(dtype: torch.dtype) -> Tensor:
    """All numbers of a 16-bit dtype, infinities and NaNs among them: (65536,)."""
    bits = torch.from_numpy(np.arange(2**16, dtype=np.uint16).view(np.int16))
    return bits.view(dtype)


def hard_values(dtype: torch.dtype) -> Tensor:
    """Float32 numbers where rounding to `dtype` goes wrong first: (count,)."""
    every = every_value(dtype).float()
    every = every[torch.isfinite(every)]
    above = torch.nextafter(every, torch.tensor(torch.inf))
    below = torch.nextafter(every, torch.tensor(-torch.inf))
    ordered = every.unique().double()
    ties = ((ordered[1:] + ordered[:-1]) / 2).float()  # exactly between two numbers of `dtype`
    beside_ties = [torch.nextafter(ties, torch.full_like(ties, s)) for s in (-torch.inf, torch.inf)]
    largest = torch.finfo(torch.float32).max
    edges = torch.tensor(
        [65504, 65519, 65519.996, 65520, 65536, largest, torch.nan, 1e-45, 0.0, 2**-25]
    )
    random = np.random.default_rng(0).integers(0, 2**32, 200_000, dtype=np.uint32)
    bits = torch.from_numpy(random.view(np.float32))  # any exponent, NaNs with any payload
    values = torch.cat([every, above, below, ties, *beside_ties, edges, -edges, bits])
    return values[~values.isinf()]  # as a weight infinity gives NaN beside a bilinear weight of 0


def assert_same_numbers(actual: Tensor, expected: Tensor) -> None:
    """Equal numbers; one NaN is as good as another, and sums that are zero may lose their sign."""
    assert actual.dtype == expected.dtype
    assert torch.equal(actual.isnan(), expected.isnan())
    number = ~expected.isnan()
    assert torch.equal(actual[number], expected[number])


def multiply(operator: Operator, image: Tensor, weights: Tensor) -> Tensor:
    """Images of one pixel (count, 1, 1, C) times float32 or 16-bit weights (count)."""
    offset = torch.zeros(len(image), 1, 1, 2, dtype=weights.dtype)
    mask = weights.view(-1, 1, 1, 1)
    return operator(image, offset, mask, kernel_size=1, padding=0, groups=1)


@low_precision
@pytest.mark.parametrize("channels", CHANNELS)
def test_the_output_is_rounded_as_pytorch_rounds(native, dtype, channels):
    values = hard_values(dtype)
    output = multiply(native, torch.ones(len(values), 1, 1, channels, dtype=dtype), values)
    for channel in {0, channels // 2, channels - 1}:
        assert_same_numbers(output[:, 0, 0, channel], values.to(dtype))


@low_precision
def test_the_gradient_of_the_input_is_rounded_as_pytorch_rounds(native, dtype):
    values = hard_values(dtype)
    image = torch.ones(len(values), 1, 1, 7, dtype=dtype, requires_grad=True)
    multiply(native, image, values).backward(torch.ones_like(image))
    assert_same_numbers(image.grad[:, 0, 0, 3], values.to(dtype))


@low_precision
def test_the_gradient_of_the_weights_is_rounded_as_pytorch_rounds(native, dtype):
    every = every_value(dtype)
    left, right = every, every[torch.randperm(len(every))]  # products between numbers of the dtype
    weights = torch.ones(len(every), dtype=dtype, requires_grad=True)
    multiply(native, left.view(-1, 1, 1, 1), weights).backward(right.view(-1, 1, 1, 1))
    products = left.float() * right.float()
    finite = torch.isfinite(products)  # an infinite one is inf - inf on the way
    assert_same_numbers(weights.grad[finite], products.to(dtype)[finite])


@low_precision
@pytest.mark.parametrize("channels", CHANNELS)
def test_every_16_bit_number_goes_through_unchanged(native, dtype, channels):
    values = every_value(dtype)
    image = values.view(-1, 1, 1, 1).expand(-1, 1, 1, channels).contiguous()
    output = multiply(native, image, torch.ones(len(values), dtype=dtype))
    for channel in {0, channels // 2, channels - 1}:
        assert_same_numbers(output[:, 0, 0, channel], values)


@low_precision
def test_every_finite_16_bit_weight_is_read_as_pytorch_reads_it(native, dtype):
    values = every_value(dtype)
    values = values[~values.isinf()]
    output = multiply(native, torch.ones(len(values), 1, 1, 16, dtype=dtype), values)
    assert_same_numbers(output[:, 0, 0, 5], values)


def test_float32_goes_through_unchanged(native):
    values = hard_values(torch.float16)
    output = multiply(native, torch.ones(len(values), 1, 1, 16), values)
    assert_same_numbers(output[:, 0, 0, 5], values)
