"""A data set in COCO's format that is made in a moment, and a detector that fits it."""

import json
from pathlib import Path

import cv2
import numpy as np

CLASSES = ("disc", "bar")
SIDE = 64

CONFIG = """
_base_ = ["{configs}/_base_/models/mask_rcnn_internimage_fpn.py",
          "{configs}/_base_/datasets/coco_instance.py",
          "{configs}/_base_/schedules/schedule_1x.py",
          "{configs}/_base_/default_runtime.py"]
data_root = "{data}"
train_ann_file = "annotations/train.json"
train_img_prefix = "train/"
val_ann_file = "annotations/val.json"
val_img_prefix = "val/"
classes = {classes}
model = dict(
    backbone=dict(arch="test_t"),
    neck=dict(in_channels=[16, 32, 64, 128], out_channels=16),
    rpn_head=dict(in_channels=16, feat_channels=16),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=16),
        mask_roi_extractor=dict(out_channels=16),
        bbox_head=dict(in_channels=16, fc_out_channels=16),
        mask_head=dict(in_channels=16, conv_out_channels=16, num_convs=1),
    ),
    train_cfg=dict(rpn_proposal=dict(nms_pre=60, max_per_img=30)),
    test_cfg=dict(rpn=dict(nms_pre=60, max_per_img=30)),
)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(type="Resize", scale=(64, 64), keep_ratio=True),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(64, 64), keep_ratio=True),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(type="PackDetInputs",
         meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]
train_dataloader = dict(batch_size=1, num_workers=0, persistent_workers=False,
    dataset=dict(pipeline=train_pipeline, filter_cfg=dict(min_size=8)))
val_dataloader = dict(num_workers=0, persistent_workers=False,
    dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=2)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
default_hooks = dict(logger=dict(interval=1))
log_processor = dict(window_size=1)
param_scheduler = [dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=4)]
randomness = dict(seed=1)
"""


def write_images(folder: Path, num_train: int = 8, num_val: int = 3) -> Path:
    """Writes images of discs and bars with their boxes and masks; returns the folder."""
    (folder / "annotations").mkdir(parents=True)
    generator = np.random.default_rng(0)
    for part, count in (("train", num_train), ("val", num_val)):
        (folder / part).mkdir()
        content: dict = {"images": [], "annotations": [], "categories": []}
        # Numbers with a gap, as COCO's own have them.
        content["categories"] = [{"id": 3 * i + 1, "name": name} for i, name in enumerate(CLASSES)]
        for index in range(count):
            image = generator.integers(0, 60, (SIDE, SIDE, 3), dtype=np.uint8)
            name = f"{index:03}.png"
            content["images"].append(
                {"id": index + 1, "file_name": name, "width": SIDE, "height": SIDE}
            )
            for kind in range(len(CLASSES)):
                x, y = (int(v) for v in generator.integers(2, SIDE - 26, 2))
                w, h = (22, 22) if kind == 0 else (24, 10)
                mask = np.zeros((SIDE, SIDE), np.uint8)
                if kind == 0:
                    cv2.circle(mask, (x + 11, y + 11), 11, 1, -1)
                else:
                    mask[y : y + h, x : x + w] = 1
                image[mask > 0] = (200, 60, 60) if kind == 0 else (60, 220, 60)
                outline = max(
                    cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0], key=len
                )
                content["annotations"].append(
                    {
                        "id": len(content["annotations"]) + 1,
                        "image_id": index + 1,
                        "category_id": 3 * kind + 1,
                        "bbox": [x, y, w, h],
                        "area": float(mask.sum()),
                        "iscrowd": 0,
                        "segmentation": [outline.reshape(-1).tolist()],
                    }
                )
            cv2.imwrite(str(folder / part / name), image)
        (folder / "annotations" / f"{part}.json").write_text(json.dumps(content))
    return folder


def write_config(path: Path, data: Path, more: str = "") -> Path:
    """Writes a config of a tiny Mask R-CNN for the images in ``data``; returns its path."""
    configs = Path(__file__).resolve().parents[2] / "detection" / "configs"
    path.write_text(CONFIG.format(configs=configs, data=data, classes=CLASSES) + more)
    return path
