"""The runner's resizing equals OpenCV's, mmcv's and PyTorch's."""

from __future__ import annotations

import cv2
import mmcv
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from internimage.runtime.resizing import resize_image, resize_maps, size_within

SIZES = [
    ((97, 131), (64, 200)),
    ((64, 48), (32, 24)),  # by exactly a half, which OpenCV does otherwise
    ((64, 48), (32, 25)),
    ((60, 90), (20, 30)),
    ((31, 17), (62, 34)),
    ((1, 1), (7, 5)),
    ((1, 50), (3, 20)),
    ((40, 2), (9, 1)),
    ((33, 57), (33, 57)),
    ((500, 375), (123, 92)),
]


@pytest.mark.parametrize(("size", "target"), SIZES)
def test_images_are_resized_as_opencv_does_bit_by_bit(size, target):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    expected = cv2.resize(image, target[::-1], interpolation=cv2.INTER_LINEAR)
    found = resize_image(image, target)
    assert found.dtype == np.uint8
    assert np.array_equal(found, expected)


def test_images_of_any_size_are_resized_as_opencv_does():
    generator = np.random.default_rng(1)
    for _ in range(150):
        height, width, *target = generator.integers(1, 90, 4).tolist()
        image = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        expected = cv2.resize(image, tuple(target[::-1]), interpolation=cv2.INTER_LINEAR)
        assert np.array_equal(resize_image(image, tuple(target)), expected), (image.shape, target)


def test_the_largest_size_within_a_scale_is_mmcvs():
    generator = np.random.default_rng(2)
    for _ in range(500):
        height, width = generator.integers(1, 3000, 2).tolist()
        scale = tuple(generator.integers(200, 2100, 2).tolist())
        width_, height_ = mmcv.rescale_size((width, height), scale)
        assert size_within((height, width), scale) == (max(height_, 1), max(width_, 1))


def test_a_size_keeps_to_limits_of_height_and_width():
    assert size_within((200, 100), (128, 128)) == (128, 64)
    assert size_within((200, 100), (128, 128), (64, 128)) == (64, 32)
    assert size_within((1, 5000), (128, 128), (128, 128)) == (1, 128)


@pytest.mark.parametrize(("size", "target"), SIZES)
def test_maps_are_resized_as_pytorch_does(size, target):
    maps = torch.randn(5, *size, generator=torch.Generator().manual_seed(0))
    expected = F.interpolate(maps[None], target, mode="bilinear", align_corners=False)[0]
    found = resize_maps(maps.numpy(), target)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=1e-6)
