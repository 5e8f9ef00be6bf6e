"""A data set of semantic masks that is made in a moment, and a segmentor that fits it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from tests.script_runs import ROOT, Done
from tests.script_runs import run_script as run_any_script

CONFIGS = ROOT / "segmentation" / "configs"
CLASSES = ("ground", "disc", "bar")
PALETTE = [[60, 60, 60], [220, 40, 40], [40, 200, 40]]
HEIGHT, WIDTH = 48, 64

CONFIG = """
_base_ = ["{configs}/_base_/models/upernet_internimage.py",
          "{configs}/_base_/datasets/semantic.py",
          "{configs}/_base_/schedules/schedule_160k.py",
          "{configs}/_base_/default_runtime.py"]
data_root = "{data}"
train_img_prefix = "images/train"
train_seg_map_prefix = "masks/train"
val_img_prefix = "images/val"
val_seg_map_prefix = "masks/val"
classes = {classes}
palette = {palette}
img_suffix = ".png"
seg_map_suffix = ".png"
reduce_zero_label = False
crop_size = (32, 32)
model = dict(
    data_preprocessor=dict(size=crop_size),
    backbone=dict(arch="test_t", drop_path_rate=0.1),
    decode_head=dict(in_channels=[16, 32, 64, 128], channels=16),
    auxiliary_head=dict(in_channels=64, channels=16),
)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="CheckSegMap", num_classes=len(classes)),
    dict(type="RandomResize", scale=(64, 48), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type="RandomCrop", crop_size=crop_size, cat_max_ratio=0.75),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackSegInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(64, 48), keep_ratio=True),
    dict(type="LoadAnnotations"),
    dict(type="CheckSegMap", num_classes=len(classes)),
    dict(type="PackSegInputs"),
]
tta_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(
        type="TestTimeAug",
        transforms=[
            [dict(type="Resize", scale=scale, keep_ratio=True) for scale in ((64, 48), (96, 72))],
            [dict(type="RandomFlip", prob=0.0), dict(type="RandomFlip", prob=1.0)],
            [dict(type="LoadAnnotations")],
            [dict(type="CheckSegMap", num_classes=len(classes))],
            [dict(type="PackSegInputs")],
        ],
    ),
]
fields = dict(type="BaseSegDataset", data_root=data_root, img_suffix=img_suffix,
    seg_map_suffix=seg_map_suffix, reduce_zero_label=reduce_zero_label,
    metainfo=dict(classes=classes, palette=palette))
train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False, dataset=dict(
    data_prefix=dict(img_path=train_img_prefix, seg_map_path=train_seg_map_prefix),
    pipeline=train_pipeline, **fields))
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(
    data_prefix=dict(img_path=val_img_prefix, seg_map_path=val_seg_map_prefix),
    pipeline=test_pipeline, **fields))
test_dataloader = val_dataloader
train_cfg = dict(max_iters=24, val_interval=12)
optim_wrapper = dict(optimizer=dict(lr=5e-3))
param_scheduler = [dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=4)]
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=12, max_keep_ckpts=9))
log_processor = dict(window_size=1)
randomness = dict(seed=1)
del fields
"""


def draw(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Returns an image (H, W, 3), BGR, of a disc and a bar, and its mask (H, W) of labels."""
    image = generator.integers(0, 60, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    x, y = (int(generator.integers(10, side - 10)) for side in (WIDTH, HEIGHT))
    cv2.circle(mask, (x, y), 9, 1, -1)
    x, y = (int(generator.integers(2, side - 22)) for side in (WIDTH, HEIGHT))
    mask[y : y + 8, x : x + 20] = 2
    for label, colour in ((1, (200, 60, 60)), (2, (60, 220, 60))):
        image[mask == label] = colour
    return image, mask


def write_images(folder: Path, num_train: int = 8, num_val: int = 3) -> Path:
    """Writes ``images/{train,val}`` and ``masks/{train,val}``; returns the folder."""
    generator = np.random.default_rng(0)
    for part, count in (("train", num_train), ("val", num_val)):
        for kind in ("images", "masks"):
            (folder / kind / part).mkdir(parents=True)
        for index in range(count):
            image, mask = draw(generator)
            cv2.imwrite(str(folder / "images" / part / f"{index:03}.png"), image)
            cv2.imwrite(str(folder / "masks" / part / f"{index:03}.png"), mask)
    return folder


def write_config(path: Path, data: Path, more: str = "") -> Path:
    """Writes a config of a tiny UperNet for the images in ``data``; returns its path."""
    text = CONFIG.format(configs=CONFIGS, data=data, classes=CLASSES, palette=PALETTE)
    path.write_text(text + more)
    return path


def run_script(
    name: str, *arguments: str, folder: Path, stop_at: str | None = None, **variables: str
) -> Done:
    """Runs a script of segmentation/ in a folder; see ``tests.script_runs.run_script``."""
    return run_any_script(
        f"segmentation/{name}", *arguments, folder=folder, stop_at=stop_at, **variables
    )
