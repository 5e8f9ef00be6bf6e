"""test.py --tta, whole: weights behind the wrapper, several images of several views, the metric.

What the views are merged to is tested with the prediction, which is the oracle here.
"""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import mmengine
import pytest
import torch

from internimage.integrations.openmmlab.prediction.detector import build_detector
from internimage.integrations.openmmlab.scripts.test import main
from tests.detection.script_runs import CONFIGS
from tests.detection.tiny_coco import CLASSES, write_config, write_images
from tests.detection.tiny_detectors import save_tiny_detector

BOXES_ALONE = """
model["roi_head"].update(mask_head=None, mask_roi_extractor=None)
model["roi_head"]["bbox_head"].update(num_classes=2)
test_pipeline[2].update(with_mask=False)
val_evaluator = test_evaluator = dict(metric="bbox")
test_dataloader.update(batch_size=2)
tta_model = dict(
    type="DetTTAModel",
    tta_cfg=dict(nms=dict(type="soft_nms", iou_threshold=0.6, min_score=0.001), max_per_img=60),
)
tta_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(
        type="TestTimeAug",
        transforms=[
            [dict(type="Resize", scale=(side, side), keep_ratio=True) for side in (64, 96)],
            [dict(type="RandomFlip", prob=1.0), dict(type="RandomFlip", prob=0.0)],
            [dict(type="LoadAnnotations", with_bbox=True)],
            [dict(type="PackDetInputs",
                  meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor",
                             "flip", "flip_direction"))],
        ],
    ),
]
"""


def predictions(folder: Path, *flags: str) -> dict[str, dict[str, torch.Tensor]]:
    """What test.py dumps for each image."""
    name = f"{len(flags)}.pkl"
    paths = [str(folder / path) for path in ("tiny.py", "model.pth")]
    more = ["--work-dir", str(folder / "tested"), "--out", str(folder / name), *flags]
    assert main("test.py", CONFIGS, [*paths, *more]) == 0
    return {sample["img_path"]: sample["pred_instances"] for sample in mmengine.load(folder / name)}


@pytest.mark.slow
@pytest.mark.usefixtures("signals_and_warnings_as_before")
def test_an_augmented_evaluation_finds_what_the_augmented_prediction_does(tmp_path: Path):
    write_config(tmp_path / "tiny.py", write_images(tmp_path / "data", num_train=1), BOXES_ALONE)
    save_tiny_detector(tmp_path / "tiny.py", tmp_path / "model.pth", classes=CLASSES)
    augmented = predictions(tmp_path, "--tta")
    metrics = json.loads((tmp_path / "tested" / "metrics.json").read_text())
    assert 0 <= metrics["bbox_mAP"] <= 1
    plain = predictions(tmp_path)
    detector = build_detector(
        str(tmp_path / "model.pth"), config=str(tmp_path / "tiny.py"), tta=True
    )
    assert len(augmented) == 3
    for path, found in augmented.items():
        expected = detector.detect(cv2.imread(path), score_threshold=0)
        assert len(expected) > 3
        for key in ("bboxes", "scores", "labels"):
            torch.testing.assert_close(found[key], expected[key], atol=1e-4, rtol=1e-4)
        assert not torch.equal(found["scores"][:3], plain[path]["scores"][:3])
