"""The detectors' two operators: eager as mmcv's, and in ONNX Runtime the same to rounding.

Both ways of writing them, as ONNX's own operators and as loops.
"""

from __future__ import annotations

import mmcv.ops
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from internimage.integrations.openmmlab.export import box_operators, box_operators_in_loops
from internimage.integrations.openmmlab.export.box_operators import (
    DROPPED,
    keep_scores,
    roi_align,
)

FORMS = {"operators": box_operators, "loops": box_operators_in_loops}
ABSENT = {"NonMaxSuppression", "RoiAlign", "Scan"}
"""What loops are there to do without."""


class Suppression(nn.Module):
    """Suppression as a model."""

    def forward(self, boxes, scores):
        return keep_scores(boxes, scores, 0.5, 0.1)


class Alignment(nn.Module):
    """RoIAlign as a model."""

    def __init__(self, sampling_ratio, aligned):
        super().__init__()
        self.sampling_ratio = sampling_ratio
        self.aligned = aligned

    def forward(self, features, boxes, images):
        return roi_align(features, boxes, images, [7, 5], 0.25, self.sampling_ratio, self.aligned)


def run(model, tensors, tmp_path, form):
    """Return a model's output in ONNX Runtime."""
    names = [f"input{index}" for index in range(len(tensors))]
    torch.onnx.export(
        model,
        tensors,
        tmp_path / "model.onnx",
        dynamo=True,
        opset_version=18,
        custom_translation_table=FORMS[form].translations(),
        input_names=names,
        verbose=False,
    )
    nodes = onnx.load(tmp_path / "model.onnx").graph.node
    assert bool(ABSENT & {node.op_type for node in nodes}) == (form == "operators")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    wanted = {value.name for value in session.get_inputs()}
    tensors_of = dict(zip(names, tensors, strict=True))
    feed = {name: tensor.numpy() for name, tensor in tensors_of.items() if name in wanted}
    return session.run(None, feed)[0]


def overlapping_boxes():
    generator = torch.Generator().manual_seed(0)
    corner = 40 * torch.rand(3, 60, 2, generator=generator)
    boxes = torch.cat([corner, corner + 5 + 20 * torch.rand(3, 60, 2, generator=generator)], 2)
    scores = torch.rand(3, 60, generator=generator)
    scores[0, 7] = scores[0, 8]  # equals
    scores[2] *= 0.09  # a group in which nothing is above the threshold
    boxes[1, 3, 2:] = boxes[1, 3, :2]  # a box without any area
    return boxes, scores


@pytest.mark.parametrize("form", FORMS)
def test_suppression_keeps_what_mmcv_keeps_of_each_group(tmp_path, form):
    boxes, scores = overlapping_boxes()
    kept = keep_scores(boxes, scores, 0.5, 0.1)
    for group in range(3):
        above = scores[group] > 0.1
        expected = torch.full((60,), DROPPED)
        if above.any():
            places = above.nonzero().flatten()
            _, chosen = mmcv.ops.nms(boxes[group][above], scores[group][above], 0.5)
            expected[places[chosen]] = scores[group][places[chosen]]
        assert torch.equal(kept[group], expected)
    assert 5 < (kept[0] > 0).sum() < 60
    found = run(Suppression(), (boxes, scores), tmp_path, form)
    np.testing.assert_array_equal(found, kept.numpy())


def test_loops_keep_the_first_of_equals_and_nothing_of_padding_and_follow_long_chains(tmp_path):
    generator = torch.Generator().manual_seed(1)
    corner = 60 * torch.rand(3, 200, 2, generator=generator)
    boxes = torch.cat([corner, corner + 10 + 20 * torch.rand(3, 200, 2, generator=generator)], 2)
    scores = (10 * torch.rand(3, 200, generator=generator)).round() / 10
    boxes[0, 150:], scores[0, 150:] = 0.0, DROPPED
    # Each overlaps the next alone: every second one stays, which takes a turn a box to find out.
    boxes[1] = torch.arange(200)[:, None] * 3.0 + torch.tensor([0.0, 0, 10, 10])
    boxes[1, :, 1], boxes[1, :, 3] = 0.0, 10.0
    scores[1] = torch.linspace(1.0, 0.2, 200)
    expected = torch.full_like(scores, DROPPED)
    for group in range(3):
        order = scores[group].argsort(descending=True, stable=True)
        order = order[scores[group, order] > 0.1]
        ranks = torch.arange(len(order), 0, -1).float()  # mmcv leaves the order of equals open
        _, chosen = mmcv.ops.nms(boxes[group, order], ranks, 0.5)
        expected[group, order[chosen]] = scores[group, order[chosen]]
    assert (expected[1] > 0).sum() == 100
    found = run(Suppression(), (boxes, scores), tmp_path, "loops")
    np.testing.assert_array_equal(found, expected.numpy())


def test_suppression_of_groups_is_mmcvs_batched_suppression():
    boxes, scores = overlapping_boxes()
    groups = torch.arange(3)[:, None].expand(-1, 60)
    settings = dict(type="nms", iou_threshold=0.5)
    _, expected = mmcv.ops.batched_nms(
        boxes.flatten(0, 1), scores.flatten(), groups.flatten(), settings
    )
    kept = keep_scores(boxes, scores, 0.5, -0.5)
    assert sorted(expected.tolist()) == (kept.flatten() >= 0).nonzero().flatten().tolist()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("sampling_ratio", "aligned"), [(0, True), (2, True), (0, False)])
def test_alignment_samples_as_mmcv_does_in_any_box(tmp_path, form, sampling_ratio, aligned):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 3, 20, 24, generator=generator)
    boxes = torch.tensor(
        [
            [3.0, 5.0, 40.0, 61.0],
            [0.0, 0.0, 96.0, 80.0],
            [10.0, 10.0, 10.5, 11.0],
            [90.0, 2.0, 96.0, 79.0],
            [5.0, 5.0, 5.0, 5.0],
            [-1e4, -1e4, -1e4, -1e4],
            [0.0, 30.0, 96.0, 30.5],
            [41.0, 0.0, 41.2, 80.0],
        ]
    )
    # Each image has these, and more than go through a loop at once: inside, outside, in between.
    num_more = box_operators_in_loops.CHUNK + 5
    corner = torch.rand(2, num_more, 2, generator=generator) * torch.tensor([110.0, 96.0]) - 8.0
    size = (8 * torch.rand(2, num_more, 2, generator=generator) - 4).exp().clamp(max=80.0)
    more = torch.cat([corner, corner + size], dim=2)
    boxes = torch.cat([boxes.expand(2, -1, -1), more], dim=1).flatten(0, 1)
    images = torch.arange(2).repeat_interleave(len(boxes) // 2)
    model = Alignment(sampling_ratio, aligned)
    expected = model(features, boxes, images)
    if aligned:
        assert not expected[5].any()  # where boxes of other levels are put
    np.testing.assert_allclose(
        run(model, (features, boxes, images), tmp_path, form), expected.numpy(), rtol=0, atol=1e-5
    )
