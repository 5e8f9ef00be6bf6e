"""UPerNet, SegFormer and Mask2Former give the original's numbers with the original's weights."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tests.released_records import assert_equals_record, captured, recorded_images
from tests.segmentation.released_records import build_filled, data_samples, read_record

RECORDS = ["upernet_t", "upernet_h", "segformer_l", "mask2former_h"]


class Run:
    """A record's model run on the record's images, as for a prediction.

    Args:
        name: of the record.
        weight: gives the deterministic weights.
        image: gives the deterministic images.
    """

    def __init__(self, name, weight, image):
        self.record, self.arrays = read_record(name)
        self.model = model = build_filled(self.record, weight).eval()
        images = recorded_images(self.record, image)
        with torch.no_grad(), captured(backbone=model.backbone) as found:
            samples = model.predict(images, data_samples(self.record))
            self.features = found["backbone"][0]
            self.decoded = model.decode_head(self.features)
        self.scores = torch.stack([sample.seg_logits.data for sample in samples])
        self.labels = torch.stack([sample.pred_sem_seg.data for sample in samples])

    def check(self, name, value):
        """Compare a tensor with the record's of this name."""
        assert_equals_record(name, value, self.record, self.arrays)


@pytest.fixture(scope="module", params=RECORDS)
def run(request, weight, image):
    return Run(request.param, weight, image)


def test_backbones_equal_the_original(run):
    for i, y in enumerate(run.features):
        run.check(f"backbone.{i}", y)


@pytest.mark.parametrize("run", RECORDS[:3], indirect=True)
def test_heads_equal_the_original(run):
    run.check("decode_logits", run.decoded)
    assert run.model.with_auxiliary_head == ("aux_logits" in run.arrays)
    if run.model.with_auxiliary_head:
        with torch.no_grad():
            run.check("aux_logits", run.model.auxiliary_head(run.features))


@pytest.mark.parametrize("run", RECORDS[3:], indirect=True)
def test_mask2former_equals_the_original_in_every_layer(run):
    with torch.no_grad():
        mask_features, levels = run.model.decode_head.pixel_decoder(run.features)
    run.check("mask_features", mask_features)
    for i, y in enumerate(levels):
        run.check(f"pixel_decoder.{i}", y)
    class_logits, mask_logits = run.decoded
    assert len(class_logits) == len(mask_logits) == 5
    for i, (classes, masks) in enumerate(zip(class_logits, mask_logits, strict=True)):
        run.check(f"cls_logits.{i}", classes)
        run.check(f"mask_logits.{i}", masks)
    classes, masks = class_logits[-1].softmax(-1)[0, :, :-1], mask_logits[-1].sigmoid()[0]
    run.check("seg_scores", torch.einsum("qc,qhw->chw", classes, masks)[None])


def test_scores_and_probabilities_of_whole_images_equal_the_original(run):
    run.check("seg_logit_full", run.scores)
    run.check("inference_softmax", F.softmax(run.scores, dim=1))
    assert torch.equal(run.labels[:, 0], run.scores.argmax(dim=1))
