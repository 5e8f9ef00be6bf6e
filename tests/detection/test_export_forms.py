"""Exportable forms find what mmdet finds, R-CNNs to the last bit, before ONNX is written."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmengine.config import Config

from internimage.integrations.openmmlab.export import roi_heads
from internimage.integrations.openmmlab.export.detector import exportable
from internimage.runtime.masks import paste_mask
from tests.detection.exportable_detectors import (
    TEXTS,
    assert_same,
    build_detector,
    draw,
    predict,
    spread,
)
from tests.detection.small_dino import build, small_cb_config
from tests.detection.tiny_detectors import tiny_config

SIZES = ((96, 128), (80, 70))
NO_MASKS = dict(
    model__roi_head__mask_head=None,
    model__roi_head__mask_roi_extractor=None,
)
AGNOSTIC = dict(model__roi_head__bbox_head__reg_class_agnostic=True)
FEW_BOXES = dict(model__test_cfg__rpn__nms_pre=20, model__test_cfg__rpn__max_per_img=30)
MANY_DETECTIONS = dict(
    model__test_cfg__rpn__max_per_img=10,
    model__test_cfg__rcnn__max_per_img=100,
    model__test_cfg__rcnn__score_thr=0.0,
)
SAMPLES = dict(
    model__roi_head__bbox_roi_extractor__roi_layer__sampling_ratio=2,
    model__roi_head__bbox_roi_extractor__finest_scale=10,
)
LARGE_BOXES = dict(model__test_cfg__rpn__min_bbox_size=20)


def compare(model, pixels=0.0, score=0.0):
    images, sizes = draw(0, *SIZES, padded=(96, 128))
    with torch.no_grad():
        found = [one.numpy() for one in exportable(model)(images, sizes)]
    assert_same(found, predict(model, images, sizes), pixels=pixels, score=score)
    return found


@pytest.mark.parametrize(
    "changes",
    [{}, NO_MASKS, AGNOSTIC, FEW_BOXES, MANY_DETECTIONS, SAMPLES, LARGE_BOXES],
    ids=["as is", "boxes", "agnostic", "few", "many", "samples", "large boxes"],
)
def test_a_mask_rcnn_finds_the_very_same_in_a_batch_of_unequal_images(tmp_path, changes):
    model = build_detector(tiny_config(tmp_path, TEXTS["mask_rcnn"], **changes))
    assert len(compare(model)) == (2 if changes is NO_MASKS else 3)


@pytest.mark.parametrize("changes", [{}, NO_MASKS], ids=["masks", "boxes"])
def test_a_cascade_finds_the_very_same_after_three_stages(tmp_path, changes):
    model = build_detector(tiny_config(tmp_path, TEXTS["cascade"], **changes))
    assert len(compare(model)) == (2 if changes is NO_MASKS else 3)


@pytest.mark.slow
def test_a_dino_finds_the_same_beside_padding(tmp_path):
    model = build_detector(tiny_config(tmp_path, TEXTS["dino"]))
    # A sigmoid's last bit hangs on where its number stands in memory.
    compare(model, pixels=1e-4, score=1e-6)


def test_a_cb_dino_finds_the_same(fill):
    model = spread(fill(build(small_cb_config())).float()).eval()
    compare(model, pixels=1e-4, score=1e-6)


def test_masks_are_those_that_mmdet_pastes(tmp_path):
    model = build_detector(tiny_config(tmp_path, TEXTS["mask_rcnn"]))
    images, sizes = draw(0, (96, 128), padded=(96, 128))
    with torch.no_grad():
        boxes, _, masks = exportable(model)(images, sizes)
    (expected,) = predict(model, images, sizes)
    for box, mask, pasted in zip(boxes[0], masks[0], expected.masks, strict=True):
        found = paste_mask(mask.numpy(), box[:4].numpy(), (96, 128), 0.5)
        assert np.array_equal(found, pasted.numpy())
    assert expected.masks.any()


def test_a_model_that_sees_blue_first_takes_images_with_red_first(tmp_path):
    model = build_detector(tiny_config(tmp_path, TEXTS["mask_rcnn"]))
    images, sizes = draw(0, (96, 128), padded=(96, 128))
    with torch.no_grad():
        found = exportable(model, blue_first=True)(images.flip(1), sizes)
    expected = predict(model, images, sizes)
    assert_same([one.numpy() for one in found], expected, pixels=0.0, score=0.0)


def test_no_level_is_asked_for_a_box_without_any_area_of_which_runtimes_make_nan(monkeypatch):
    asked = []

    def record(features, boxes, *settings):
        asked.append(boxes)
        return roi_heads_align(features, boxes, *settings)

    roi_heads_align = roi_heads.roi_align
    monkeypatch.setattr(roi_heads, "roi_align", record)
    extractor = SingleRoIExtractor(
        roi_layer=dict(type="RoIAlign", output_size=7, sampling_ratio=0),
        out_channels=2,
        featmap_strides=[4, 8],
        finest_scale=20,
    )
    boxes = torch.tensor([[3.0, 3, 40, 50], [0, 0, 0, 0], [5, 7, 60, 7], [9, 9, 20, 20.5]])
    maps = [torch.randn(1, 2, 16, 16), torch.randn(1, 2, 8, 8)]
    found = roi_heads.RoIFeatures(extractor)(maps, boxes[None])
    expected = extractor(maps, torch.nn.functional.pad(boxes, (1, 0)))
    assert torch.equal(found, expected)
    assert not found[1:3].any() and found[0].any() and found[3].any()
    for level in asked:
        assert (level[:, 2:] - level[:, :2] > 0).all() and (level >= 0).all()


def test_an_image_without_any_detection_gives_padding_alone(tmp_path):
    config = tiny_config(tmp_path, TEXTS["mask_rcnn"], model__test_cfg__rcnn__score_thr=1.0)
    with torch.no_grad():
        found, labels, masks = exportable(build_detector(config))(
            *draw(0, (96, 128), padded=(96, 128))
        )
    assert (labels == -1).all() and not found.any() and not masks.any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__test_cfg__rcnn__nms__type": "soft_nms"}, "test_cfg.rcnn.nms"),
        ({"model__test_cfg__rpn__nms__max_num": 5}, "test_cfg.rpn.nms"),
        ({"model__test_cfg__rpn__nms_pre": 5000}, "test_cfg.rpn.nms_pre from 1 to 3840"),
        ({"model__test_cfg__rcnn__max_per_img": -1}, "test_cfg.rcnn.max_per_img from 1"),
        ({"model__rpn_head__loss_cls__use_sigmoid": False}, "rpn_head with a sigmoid"),
        ({"model__roi_head__type": "PISARoIHead"}, "roi_head of type .* got PISARoIHead"),
        ({"model__roi_head__mask_head__type": "CoarseMaskHead"}, "mask_head of type FCNMaskHead"),
        ({"model__roi_head__mask_roi_extractor__roi_layer__pool_mode": "max"}, "pool_mode = avg"),
    ],
)
def test_what_would_be_exported_as_something_else_is_refused_by_name(tmp_path, changes, message):
    config = Config.fromfile(tiny_config(tmp_path, TEXTS["mask_rcnn"], **changes))
    with pytest.raises(ValueError, match=f"export_detector: expected .*{message}"):
        exportable(build_detector(config))


def test_another_kind_of_detector_is_refused_with_those_that_are_known(tmp_path):
    config = Config.fromfile(tiny_config(tmp_path, TEXTS["mask_rcnn"]))
    config.model = Config(
        dict(
            type="RetinaNet",
            backbone=config.model.backbone,
            neck=config.model.neck,
            bbox_head=dict(type="RetinaHead", num_classes=3, in_channels=32, feat_channels=32),
        )
    )
    with pytest.raises(ValueError, match="expected Faster, Mask or Cascade .* got RetinaNet"):
        exportable(build_detector(config))
