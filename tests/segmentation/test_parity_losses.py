"""Segmentors learn as the original's: the same losses and gradients for the same targets."""

from __future__ import annotations

import pytest
import torch
from mmengine.structures import PixelData

from tests.released_records import assert_gradients_equal, assert_losses_equal, recorded_images
from tests.segmentation.released_records import build_filled, data_samples, read_record

RECORDS = {
    "loss_upernet_t": "full",
    "loss_segformer_l": "full",
    "loss_mask2former_h": "full_seed0",
}


class Step:
    """One training step of a record's model: losses, and the gradients of their sum.

    Args:
        name: of the record.
        weight: gives the deterministic weights.
        image: gives the deterministic images.
    """

    def __init__(self, name, weight, image):
        record, arrays = read_record(name)
        self.expected = record["variants"][RECORDS[name]]
        self.model = build_filled(record, weight).train()
        samples = data_samples(record)
        for sample, mask in zip(samples, arrays["gt_semantic_seg"], strict=True):
            sample.gt_sem_seg = PixelData(data=torch.from_numpy(mask).long()[None])
        torch.manual_seed(0)
        losses = self.model.loss(recorded_images(record, image), samples)
        total, _ = self.model.parse_losses(losses)
        total.backward()
        self.total = total.item()
        self.losses = {name: value.item() for name, value in losses.items()}


@pytest.fixture(scope="module", params=RECORDS)
def step(request, weight, image):
    return Step(request.param, weight, image)


def test_losses_equal_the_original(step):
    assert_losses_equal(step.losses, step.total, step.expected["float32"])


def test_gradients_of_all_parameters_equal_the_original(step):
    assert_gradients_equal(step.model, step.expected)
