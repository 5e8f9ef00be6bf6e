"""Detectors learn as the original's: the same losses and gradients for the same targets."""

from __future__ import annotations

import copy
import re

import numpy as np
import pytest
import torch
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData

from tests.detection.released_records import build_filled, data_samples, read_record
from tests.released_records import (
    assert_gradients_equal,
    assert_losses_equal,
    recorded_images,
)

pytestmark = pytest.mark.slow

# The gradients are recorded in float64. Behind a softmax the terms of a bias's gradient nearly
# cancel: of this one a fortieth of their sum is left, so rounding in float32 counts forty times.
LESS_EXACT = {"loss_cascade_l": {"backbone.levels.0.blocks.0.dcn.mask.bias": 2.5e-3}}

WITH_GRADIENTS = [
    pytest.param(("loss_mask_rcnn_t", "fixed_proposals"), id="mask_rcnn"),
    pytest.param(("loss_mask_rcnn_t_sampled", "end_to_end_seed0"), id="mask_rcnn_sampled"),
    pytest.param(("loss_cascade_l", "fixed_proposals"), id="cascade", marks=pytest.mark.slow),
    pytest.param(("loss_dino_t", "full"), id="dino"),
    pytest.param(("loss_cbdino_h", "full"), id="cbdino"),
]
WITHOUT_GRADIENTS = [
    pytest.param(("loss_mask_rcnn_t", "end_to_end"), id="mask_rcnn_own_proposals"),
    pytest.param(
        ("loss_mask_rcnn_t_sampled", "fixed_proposals_seed0"), id="mask_rcnn_sampled_fixed"
    ),
]


def samples_with_targets(record, arrays):
    """The record's data samples with their boxes, classes and masks."""
    samples = data_samples(record)
    width = record["input"]["shape"][3]
    for i, sample in enumerate(samples):
        sample.gt_instances = InstanceData(
            bboxes=torch.from_numpy(arrays[f"gt_bboxes.{i}"]).float(),
            labels=torch.from_numpy(arrays[f"gt_labels.{i}"]).long(),
        )
        if f"gt_masks_packed.{i}" in arrays:
            masks = np.unpackbits(arrays[f"gt_masks_packed.{i}"], axis=2, count=width)
            sample.gt_instances.masks = BitmapMasks(masks, *masks.shape[1:])
    return samples


def losses_of_fixed_proposals(model, images, samples, arrays):
    """Losses of a two-stage detector whose second stage gets the record's proposals."""
    features = model.extract_feat(images)
    class_agnostic = copy.deepcopy(samples)
    for sample in class_agnostic:
        sample.gt_instances.labels = torch.zeros_like(sample.gt_instances.labels)
    losses = model.rpn_head.loss(features, class_agnostic)
    proposals = [
        InstanceData(bboxes=torch.from_numpy(arrays[f"proposals.{i}"]).float())
        for i in range(len(samples))
    ]
    return losses | model.roi_head.loss(features, proposals, samples)


def current_name(name):
    """Today's name of a recorded loss."""
    name = name.replace("interm_", "enc_")
    if match := re.fullmatch(r"(.*loss_(?:cls|bbox|iou))([01])(?:_w0\.5)?", name):
        return f"stream{match[2]}.{match[1]}"
    return name


class Step:
    """One training step of a record's model: losses, and the gradients of their sum.

    Args:
        name: of the record.
        variant: of the record.
        weight: gives the deterministic weights.
        image: gives the deterministic images.
    """

    def __init__(self, name, variant, weight, image):
        record, arrays = read_record(name)
        self.expected = record["variants"][variant]
        self.gradient_tolerances = LESS_EXACT.get(name, {})
        self.model = build_filled(record, weight).train()
        images = recorded_images(record, image)
        samples = samples_with_targets(record, arrays)
        torch.manual_seed(0)
        np.random.seed(0)
        if variant.startswith("fixed_proposals"):
            losses = losses_of_fixed_proposals(self.model, images, samples, arrays)
        else:
            losses = self.model.loss(images, samples)
        total, _ = self.model.parse_losses(losses)
        if "grad_norms" in self.expected:
            total.backward()
        self.total = total.item()
        self.losses = {
            name: [v.item() for v in value] if isinstance(value, list) else value.item()
            for name, value in losses.items()
        }


@pytest.fixture(scope="module", params=WITH_GRADIENTS)
def step(request, weight, image):
    return Step(*request.param, weight, image)


@pytest.mark.parametrize("step", WITH_GRADIENTS + WITHOUT_GRADIENTS, indirect=True)
def test_losses_equal_the_original(step):
    expected = step.expected["float32"]
    renamed = {current_name(name): value for name, value in expected["losses"].items()}
    assert_losses_equal(step.losses, step.total, expected | {"losses": renamed})


def test_gradients_of_all_parameters_equal_the_original(step):
    assert_gradients_equal(step.model, step.expected, step.gradient_tolerances)
