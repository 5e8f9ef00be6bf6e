"""Tensors of more than 2^31 elements: sizes that 32-bit indices cannot count.

They are zero but for a few windows, and long strides keep the output small. The system gives the
untouched pages of a zero tensor no memory, so that only the gradient's test needs some (6 GB).
"""

from __future__ import annotations

import pytest
import torch
from dcnv3_cases import Operator
from torch import Tensor

import ops_dcnv3
from ops_dcnv3 import extension

LIMIT = 2**31
DTYPE = torch.bfloat16
HALF = 3  # a window holds 7 x 7 pixels: the kernel reaches 1 pixel, the offsets 1.2 more

pytestmark = pytest.mark.slow


def around(image: Tensor, row: int, column: int) -> Tensor:
    """View of the pixels of image (H, W, C) around (row, column), cut off at the border."""
    return image[
        max(row - HALF, 0) : row + HALF + 1,
        max(column - HALF, 0) : column + HALF + 1,
    ]


def window(image: Tensor, row: int, column: int) -> Tensor:
    """Copy (7, 7, C) in float64 of the pixels around (row, column), zeros beyond the border."""
    result = torch.zeros((2 * HALF + 1, 2 * HALF + 1, image.shape[-1]), dtype=torch.float64)
    part = around(image, row, column)
    top, left = max(HALF - row, 0), max(HALF - column, 0)
    result[top : top + part.shape[0], left : left + part.shape[1]] = part
    return result


def pixel_of(window: Tensor, offset: Tensor, mask: Tensor, groups: int) -> Tensor:
    """Output (C) at the middle of a window.

    With stride 5 and no padding a window has one output, around (1, 1): 2 more lead to (3, 3).
    """
    output = ops_dcnv3.dcnv3_reference(
        window[None],
        offset.double().view(1, 1, 1, -1) + 2,
        mask.double().view(1, 1, 1, -1),
        groups=groups,
        padding=0,
        stride=5,
    )
    return output.view(-1)


def random_controls(*shape: int) -> tuple[Tensor, Tensor]:
    """Offsets (..., G*9*2) of up to 1.2 pixels and weights (..., G*9); the last number is G."""
    *pixels, groups = shape
    return torch.rand((*pixels, groups * 18)) * 2.4 - 1.2, torch.rand((*pixels, groups * 9))


def assert_close(actual: Tensor, exact: Tensor) -> None:
    """Equal to bfloat16's precision, and not trivially."""
    assert exact.abs().max() > 0.1
    torch.testing.assert_close(actual.double(), exact, rtol=2**-8, atol=0.02)


@pytest.mark.parametrize(
    "batch, height, width",
    [(1, 8200, 8192), (5, 4096, 4100)],
    ids=["one image of 2^31", "images of 2^29"],
)
def test_an_input_of_more_than_2_31_elements_is_indexed_right(native, batch, height, width):
    groups, stride = 2, 1000
    image = torch.zeros((batch, height, width, 32), dtype=DTYPE)
    assert image.numel() > LIMIT
    centres = [
        (n, row, column)
        for n in {0, batch - 1}
        for row in range(0, height, stride)
        for column in range(0, width, stride)
    ]
    for n, row, column in centres:
        part = around(image[n], row, column)
        part.copy_(torch.randn(part.shape))
    size = (batch, -(-height // stride), -(-width // stride))
    offset, mask = random_controls(*size, groups)
    output = native(image, offset, mask, groups=groups, stride=stride)
    for n, row, column in centres:
        at = (n, row // stride, column // stride)
        exact = pixel_of(window(image[n], row, column), offset[at], mask[at], groups)
        assert_close(output[at], exact)


def test_offsets_of_more_than_2_31_elements_are_indexed_right(native: Operator):
    height = width = 3864
    groups = 8
    image = torch.zeros((1, height, width, groups), dtype=DTYPE)
    offset = torch.zeros((1, height, width, groups * 18), dtype=DTYPE)
    mask = torch.zeros((1, height, width, groups * 9), dtype=DTYPE)
    assert offset.numel() > LIMIT
    centres = [(0, 0), (height // 2, width // 3), (height - 1, 0), (height - 1, width - 1)]
    for row, column in centres:
        offset[0, row, column], mask[0, row, column] = random_controls(groups)
        part = around(image[0], row, column)
        part.copy_(torch.randn(part.shape))
    output = native(image, offset, mask, groups=groups)
    for row, column in centres:
        at = (0, row, column)
        exact = pixel_of(window(image[0], row, column), offset[at], mask[at], groups)
        assert_close(output[at], exact)
    written = output.abs().amax(-1).nonzero().tolist()
    assert written == [[0, row, column] for row, column in centres]


# the indices do not depend on the level, and each run takes a while
@pytest.mark.parametrize("native", extension.cpu_levels()[-1:] or ["none"], indirect=True)
def test_a_gradient_of_more_than_2_31_elements_is_indexed_right(native: Operator):
    torch.set_num_threads(1)  # each thread works on a copy of one image and group
    batch, height, width, groups, stride = 5, 4096, 4100, 8, 1000
    image = torch.zeros((batch, height, width, 32), dtype=DTYPE, requires_grad=True)
    assert image.numel() > LIMIT
    size = (batch, -(-height // stride), -(-width // stride))
    offset, mask = random_controls(*size, groups)
    output = native(image, offset, mask, groups=groups, stride=stride)
    upstream = torch.randn(output.shape).to(DTYPE)
    (gradient,) = torch.autograd.grad(output, image, upstream)
    inside = torch.ones(1).expand(height, width, 1)
    for n in (0, batch - 1):
        for row in range(0, height, stride):
            for column in range(0, width, stride):
                at = (n, row // stride, column // stride)
                leaf = torch.zeros((7, 7, 32), dtype=torch.float64, requires_grad=True)
                pixel = pixel_of(leaf, offset[at], mask[at], groups)
                (exact,) = torch.autograd.grad(pixel, leaf, upstream[at].double())
                exact = exact * window(inside, row, column)
                assert_close(window(gradient[n], row, column), exact)
