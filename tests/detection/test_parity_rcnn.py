"""Mask R-CNN and the cascades give the original's numbers with the original's weights."""

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

RECORDS = ["mask_rcnn_t", "cascade_l", "cascade_crowdhuman"]
WITH_MASKS = ["mask_rcnn_t", "cascade_l"]
CASCADES = ["cascade_l", "cascade_crowdhuman"]


class Run:
    """A record's model, its features of the record's images, and its predictions on them.

    Args:
        name: of the record.
        weight: gives the deterministic weights.
        image: gives the deterministic images.
    """

    def __init__(self, name, weight, image):
        self.record, self.arrays = read_record(name)
        self.model = model = build_filled(self.record, weight).eval()
        images = recorded_images(self.record, image)
        self.metas = [sample.metainfo for sample in data_samples(self.record)]
        self.rois = torch.from_numpy(self.arrays["rois"]).float()
        with (
            torch.no_grad(),
            captured(backbone=model.backbone, neck=model.neck, rpn=model.rpn_head) as self.found,
        ):
            self.samples = model.predict(images, data_samples(self.record), rescale=False)
            samples = data_samples(self.record)
            self.proposals = model.rpn_head.predict(self.pyramid, samples, rescale=False)

    @property
    def pyramid(self):
        """What the neck returned."""
        return self.found["neck"][0]

    def stages(self, kind):
        """Name of a stage in the record, its box or mask head, and what reads features for it."""
        roi_head = self.model.roi_head
        heads = getattr(roi_head, f"{kind}_head")
        extractors = getattr(roi_head, f"{kind}_roi_extractor")
        if self.record["model"]["type"] == "MaskRCNN":
            return [("", heads, extractors)]
        pairs = zip(heads, extractors, strict=True)
        return [(f".{i}", head, extractor) for i, (head, extractor) in enumerate(pairs)]

    def check(self, name, value):
        """Compare a tensor with the record's of this name."""
        assert_equals_record(name, value, self.record, self.arrays)


@pytest.fixture(scope="module", params=RECORDS)
def run(request, weight, image):
    return Run(request.param, weight, image)


def test_backbone_and_neck_equal_the_original(run):
    for name in ("backbone", "neck"):
        for i, y in enumerate(run.found[name][0]):
            run.check(f"{name}.{i}", y)


def test_region_proposals_equal_the_original(run):
    for name, levels in zip(("rpn_cls", "rpn_bbox"), run.found["rpn"][0], strict=True):
        for i, y in enumerate(levels):
            run.check(f"{name}.{i}", y)
    for i, found in enumerate(run.proposals):
        expected = run.arrays[f"proposals.{i}"]
        # Non-maximum suppression decides by comparisons that rounding can turn.
        assert abs(len(found) - int(run.arrays[f"num_proposals.{i}"])) <= 3
        boxes = torch.cat([found.bboxes, found.scores[:, None]], dim=1).double().numpy()
        pairs = pair_detections(expected, np.zeros(len(expected)), boxes, np.zeros(len(boxes)))
        assert len(pairs) >= len(expected) - 3


def test_box_heads_equal_the_original(run):
    for suffix, head, extractor in run.stages("bbox"):
        with torch.no_grad():
            features = extractor(run.pyramid[: extractor.num_inputs], run.rois)
            scores, deltas = head(features)
        if suffix in ("", ".0"):
            run.check("roi_feats", features)
        run.check(f"bbox_cls{suffix}", scores)
        run.check(f"bbox_reg{suffix}", deltas)


@pytest.mark.parametrize("run", WITH_MASKS, indirect=True)
def test_mask_heads_equal_the_original(run):
    for suffix, head, extractor in run.stages("mask"):
        with torch.no_grad():
            features = extractor(run.pyramid[: extractor.num_inputs], run.rois)
            logits = head(features)
        if suffix in ("", ".0"):
            run.check("mask_roi_feats", features)
        run.check(f"mask_logits{suffix}", logits)


@pytest.mark.parametrize("run", CASCADES, indirect=True)
def test_cascade_refines_boxes_as_the_original(run):
    roi_head = run.model.roi_head
    counts = [int((run.rois[:, 0] == i).sum()) for i in range(len(run.metas))]
    rois = []
    handles = [
        extractor.register_forward_pre_hook(lambda _, inputs: rois.append(inputs[1]))
        for extractor in roi_head.bbox_roi_extractor
    ]
    heads = {f"stage{i}": head for i, head in enumerate(roi_head.bbox_head)}
    with torch.no_grad(), captured(**heads) as found:
        roi_head._refine_roi(run.pyramid, run.rois, run.metas, counts)
    for handle in handles:
        handle.remove()
    for i in range(len(heads)):
        scores, deltas = found[f"stage{i}"][0]
        run.check(f"chain_rois.{i}", rois[i])
        run.check(f"chain_cls.{i}", scores)
        run.check(f"chain_reg.{i}", deltas)


def test_detections_equal_the_original(run):
    for i, sample in enumerate(run.samples):
        found = sample.pred_instances
        boxes = torch.cat([found.bboxes, found.scores[:, None]], dim=1).double().numpy()
        expected, labels = run.arrays[f"det_bboxes.{i}"], run.arrays[f"det_labels.{i}"]
        assert len(expected) == len(found) == 100
        pairs = pair_detections(expected, labels, boxes, found.labels.numpy())
        assert len(pairs) >= 97
        if f"det_mask_area.{i}" in run.arrays:
            recorded, own = np.array(pairs).T
            areas = found.masks.sum(dim=(1, 2)).numpy()[own]
            # in pixels, each beside that of the same box
            difference = np.abs(areas - run.arrays[f"det_mask_area.{i}"][recorded])
            assert np.mean(difference <= 2) >= 0.95
