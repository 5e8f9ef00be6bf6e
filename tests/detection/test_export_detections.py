"""The comparison of detections sees what differs, and not in which order equals stand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from internimage.integrations.openmmlab.export.detections import DetectionDifference


def detections(count=200, precision="fp32"):
    """Return PyTorch's outputs, a copy as ONNX Runtime's, and a comparison."""
    generator = torch.Generator().manual_seed(0)
    boxes = 100 * torch.rand(1, count, 5, generator=generator)
    scores = torch.rand(count, generator=generator).sort(descending=True).values
    boxes[..., 4] = scores
    boxes[0, 5:9, 4] = scores[5]  # equals
    labels = torch.randint(0, 3, (1, count), generator=generator)
    labels[0, -10:] = -1
    boxes[0, -10:] = 0
    masks = torch.rand(1, count, 4, 4, generator=generator)
    expected = [boxes, labels, masks]
    return expected, [one.numpy().copy() for one in expected], DetectionDifference(precision)


def test_equals_may_stand_in_another_order():
    expected, found, difference = detections()
    order = np.arange(200)
    order[5:9] = order[5:9][::-1]
    result = difference(expected, [one[:, order] for one in found])
    assert str(result) == "0 pixels (all 190 detections are the same)"
    assert difference.count == 190


def test_a_better_one_may_not_stand_behind_a_worse_one():
    expected, found, difference = detections()
    order = np.arange(200)
    order[[2, 3]] = 3, 2
    result = difference(expected, [one[:, order] for one in found])
    assert (result.value, result.remark) == (math.inf, "not in the order of scores")


@pytest.mark.parametrize(
    ("output", "place", "by", "pixels"),
    [
        (0, (0, 3, 1), 5e-4, 5e-4),  # a box, pixels
        (0, (0, 0, 4), 5e-5, 5e-4),  # a score: ten times as important
        (2, (0, 3, 2, 2), 5e-5, 5e-4),  # a mask
    ],
)
def test_the_difference_is_that_of_the_worst_pair(output, place, by, pixels):
    expected, found, difference = detections()
    found[output][place] += by
    assert difference(expected, found).value == pytest.approx(pixels, rel=0.1)


def test_one_of_a_hundred_may_be_another_and_no_more():
    expected, found, difference = detections()
    found[0][0, 3, 0] += 50
    assert str(difference(expected, found)) == "0 pixels (189 of 190 detections are the same)"
    found[0][0, 4:6, 0] += 50
    assert difference(expected, found).value > 1


@pytest.mark.parametrize("change", ["a class", "one less", "one more", "NaN", "a shape"])
def test_what_is_not_a_matter_of_rounding_is_found_in_a_short_list(change):
    expected, found, difference = detections(20)
    if change == "a class":
        found[1][0, 3] = (found[1][0, 3] + 1) % 3
    elif change == "one less":
        found[1][0, 9] = -1
    elif change == "one more":
        found[1][0, 10] = 0
    elif change == "NaN":
        found[0][0, 19, 0] = math.nan
    else:
        found[0] = found[0][:, :19]
    assert difference(expected, found).value > 0.5


def test_half_precision_allows_pixels():
    expected, found, _ = detections(20)
    found[0][0, :, :4] += 0.7
    half, whole = (DetectionDifference(kind)(expected, found) for kind in ("fp16", "fp32"))
    assert half.value == whole.value == pytest.approx(0.7, rel=1e-3)
    assert half.remark == "all 10 detections are the same"
    assert whole.remark == "0 of 10 detections are the same"
