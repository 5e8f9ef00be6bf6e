"""DINO and CB-DINO give the original's numbers with the original's weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.detection.released_records import (
    build_filled,
    data_samples,
    pair_detections,
    read_record,
)
from tests.released_records import assert_equals_record, captured, recorded_images

pytestmark = pytest.mark.slow

RECORDS = ["dino_t", "dino_g", "dino_t_saturated", "cbdino_h"]


class Run:
    """A record's model run on the record's images, as for a prediction.

    Args:
        name: of the record.
        weight: gives the deterministic weights.
        image: gives the deterministic images.
    """

    def __init__(self, name, weight, image):
        self.record, self.arrays = read_record(name)
        model = build_filled(self.record, weight).eval()
        images = recorded_images(self.record, image)
        with (
            torch.no_grad(),
            captured(
                backbone=model.backbone,
                neck=model.neck,
                encoder=model.encoder,
                proposals=model.bbox_head.cls_branches[-1],
                decoder=model.decoder,
                head=model.bbox_head,
            ) as self.found,
        ):
            self.samples = model.predict(images, data_samples(self.record), rescale=False)
            if isinstance(self.found["backbone"][0], tuple):
                first = model.backbone.cb_modules[0]
                stem = first.forward_stem(images)
                self.injected = model.backbone.compose(first.forward_stages(stem, 3))

    def check(self, name, value):
        """Compare a tensor with the record's of this name."""
        assert_equals_record(name, value, self.record, self.arrays)


@pytest.fixture(scope="module", params=RECORDS)
def run(request, weight, image):
    return Run(request.param, weight, image)


def test_backbone_and_neck_equal_the_original(run):
    maps = run.found["backbone"][0]
    if isinstance(maps, tuple):
        for i, stream in enumerate(maps):
            for j, y in enumerate(stream):
                run.check(f"backbone.stream{i}.{j}", y)
        for i, y in enumerate(run.injected):
            run.check(f"cb_feats.{i}", y)
    else:
        for i, y in enumerate(maps):
            run.check(f"backbone.{i}", y)
    for i, y in enumerate(run.found["neck"][0]):
        run.check(f"neck.{i}", y)


def test_encoder_and_its_proposals_equal_the_original(run):
    run.check("memory", run.found["encoder"][0])
    logits = run.found["proposals"][0]
    best = logits.max(dim=-1).values
    run.check("enc_cls_all_max", best)
    chosen = best.topk(run.arrays["enc_topk_indices"].shape[1], dim=1).indices
    assert np.array_equal(chosen.numpy(), run.arrays["enc_topk_indices"])
    run.check("enc_topk_cls", logits.gather(1, chosen[..., None].expand(-1, -1, logits.shape[-1])))
    run.check("enc_topk_anchor", run.found["decoder"][0][1][0])


def test_every_decoder_layer_equals_the_original(run):
    logits, boxes = run.found["head"][0]
    for i in range(len(logits)):
        run.check(f"dec_cls.{i}", logits[i])
        run.check(f"dec_box.{i}", boxes[i])


def test_detections_equal_the_original(run):
    for i, sample in enumerate(run.samples):
        found = sample.pred_instances
        boxes = torch.cat([found.bboxes, found.scores[:, None]], dim=1).double().numpy()
        expected, labels = run.arrays[f"det_bboxes.{i}"], run.arrays[f"det_labels.{i}"]
        # the record's first 100 may end among equal scores
        pairs = pair_detections(expected, labels, boxes, found.labels.numpy())
        assert len(expected) == 100 and len(pairs) >= 98
