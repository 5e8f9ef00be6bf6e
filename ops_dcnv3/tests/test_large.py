"""Tensors of more than 2^31 elements: sizes that 32-bit indices cannot count.

They are zero but for a few pixels and never written in full, so that the memory they take is small:
the system gives an untouched page of a zero tensor no memory of its own.
"""

from __future__ import annotations

import pytest
import torch
from dcnv3_cases import Operator

import ops_dcnv3

LIMIT = 2**31
DTYPE = torch.bfloat16

pytestmark = pytest.mark.slow


def crop(image: torch.Tensor, row: int, column: int, size: int = 7) -> torch.Tensor:
    """The (size x size) pixels around (row, column), zeros beyond the border."""
    half = size // 2
    padded = torch.zeros((size, size, image.shape[-1]), dtype=image.dtype)
    for y in range(size):
        for x in range(size):
            r, c = row + y - half, column + x - half
            if 0 <= r < image.shape[0] and 0 <= c < image.shape[1]:
                padded[y, x] = image[r, c]
    return padded


def expected_pixel(
    image: torch.Tensor,
    row: int,
    column: int,
    offset: torch.Tensor,
    mask: torch.Tensor,
    groups: int,
) -> torch.Tensor:
    """One output pixel (C) from the pixels around its center; offsets must be below 1.5 pixels."""
    window = crop(image, row, column)[None].double()
    settings = {"groups": groups, "kernel_size": 3, "padding": 0, "stride": 5}
    # a window of 7 with stride 5 has one output, around pixel (1, 1): move it to the middle, (3, 3)
    centred = offset.double() + 2
    return ops_dcnv3.dcnv3_reference(
        window, centred.view(1, 1, 1, -1), mask.double().view(1, 1, 1, -1), **settings
    ).view(-1)


@pytest.mark.parametrize(
    "batch, height, width, channels",
    [(1, 8200, 8192, 32), (5, 4096, 4100, 32)],
    ids=["one image of 2^31", "images of 2^29"],
)
def test_an_input_of_more_than_2_31_elements_is_indexed_right(
    native: Operator, batch, height, width, channels
):
    groups, stride = 2, 1000
    image = torch.zeros((batch, height, width, channels), dtype=DTYPE)
    assert image.numel() > LIMIT
    rows = range(0, height, stride)
    columns = range(0, width, stride)
    for n in (0, batch - 1):
        for row in rows:
            for column in columns:
                window = image[n, max(row - 3, 0) : row + 4, max(column - 3, 0) : column + 4]
                window.copy_(torch.randn(window.shape))
    shape = (batch, len(rows), len(columns))
    offset = torch.rand((*shape, groups * 18)) * 2.4 - 1.2
    mask = torch.rand((*shape, groups * 9))
    output = native(image, offset, mask, groups=groups, stride=stride)
    for n in (0, batch - 1):
        for y, row in enumerate(rows):
            for x, column in enumerate(columns):
                exact = expected_pixel(
                    image[n], row, column, offset[n, y, x], mask[n, y, x], groups
                )
                assert exact.abs().max() > 0.1
                torch.testing.assert_close(output[n, y, x].double(), exact, rtol=2**-8, atol=0.02)


def test_offsets_of_more_than_2_31_elements_are_indexed_right(native: Operator):
    height = width = 3864
    groups, points = 8, 9
    offset = torch.zeros((1, height, width, groups * points * 2), dtype=DTYPE)
    mask = torch.zeros((1, height, width, groups * points), dtype=DTYPE)
    image = torch.zeros((1, height, width, groups), dtype=DTYPE)
    assert offset.numel() > LIMIT
    pixels = [(0, 0), (height // 2, width // 3), (height - 1, 0), (height - 1, width - 1)]
    for row, column in pixels:
        offset[0, row, column] = torch.rand(groups * points * 2) * 2.4 - 1.2
        mask[0, row, column] = torch.rand(groups * points)
        window = image[0, max(row - 3, 0) : row + 4, max(column - 3, 0) : column + 4]
        window.copy_(torch.randn(window.shape))
    output = native(image, offset, mask, groups=groups)
    for row, column in pixels:
        exact = expected_pixel(
            image[0], row, column, offset[0, row, column], mask[0, row, column], groups
        )
        assert exact.abs().max() > 0.1
        torch.testing.assert_close(output[0, row, column].double(), exact, rtol=2**-8, atol=0.02)
    touched = {(0, r, c) for r, c in pixels}
    written = {tuple(i) for i in output.abs().amax(-1).nonzero().tolist()}
    assert written == touched
