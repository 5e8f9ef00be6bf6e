"""What only a run shows: the averaged weights of Cascade, and a schedule that counts steps."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from internimage.integrations.openmmlab.scripts.checkpoints import read_checkpoint
from tests.detection import tiny_coco
from tests.detection.config_facts import CONFIGS

DATA = """
data_root = "{data}"
train_ann_file = "annotations/train.json"
train_img_prefix = "train/"
val_ann_file = "annotations/val.json"
val_img_prefix = "val/"
classes = {classes}
load = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations", with_bbox=True{masks})]
resize = dict(type="Resize", scale=(96, 96), keep_ratio=True)
pack = dict(
    type="PackDetInputs",
    meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor"),
)
train_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(pipeline=[*load, resize, pack]),
)
val_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(pipeline=[load[0], resize, load[1], pack]),
)
test_dataloader = val_dataloader
del load, resize, pack
"""
CASCADE = """
_base_ = "{configs}/coco/cascade_internimage_l_fpn_3x_coco.py"
model = dict(
    backbone=dict(arch="test_s", init_cfg=None),
    neck=dict(in_channels=[16, 32, 64, 128]),
    roi_head=dict(
        bbox_head=[
            dict(head, num_shared_convs=1, conv_out_channels=8, fc_out_channels=16)
            for head in _base_.model.roi_head.bbox_head
        ],
        mask_head=dict(num_convs=1, conv_out_channels=16),
    ),
    train_cfg=dict(rpn_proposal=dict(max_per_img=8)),
    test_cfg=dict(rpn=dict(max_per_img=8), rcnn=dict(max_per_img=2)),
)
train_cfg = dict(max_epochs=2)
param_scheduler = [dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=500)]
"""
DINO = """
_base_ = "{configs}/coco/dino_4scale_internimage_h_objects365_coco_ss.py"
model = dict(
    num_queries=30,
    backbone=dict(arch="test_h"),
    neck=dict(in_channels=[32, 64, 128]),
    encoder=dict(num_layers=1),
    decoder=dict(num_layers=2),
    dn_cfg=dict(group_cfg=dict(num_dn_queries=10)),
    test_cfg=dict(max_per_img=30),
)
train_cfg = dict(max_iters=8, val_interval=4)
default_hooks = dict(checkpoint=dict(interval=2))
"""


def train(folder: Path, text: str, *, masks: str = "") -> Path:
    """Train what a config says on four images; return the folder of the run."""
    data = tiny_coco.write_images(folder / "data", num_train=4, num_val=2)
    config = folder / "config.py"
    text += DATA.replace("{masks}", masks)
    config.write_text(text.format(configs=CONFIGS, data=data, classes=tiny_coco.CLASSES))
    work_dir = folder / "run"
    command = [sys.executable, CONFIGS.parent / "train.py", config, "--work-dir", work_dir]
    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr[-2000:]
    return work_dir


@pytest.mark.slow
def test_cascade_saves_and_evaluates_the_running_average_of_its_weights(tmp_path: Path):
    run = train(tmp_path, CASCADE, masks=", with_mask=True")
    checkpoint = read_checkpoint(str(run / "epoch_2.pth"))
    averaged, last = checkpoint["state_dict"], checkpoint["ema_state_dict"]
    name = "roi_head.bbox_head.0.fc_cls.weight"
    before = read_checkpoint(str(run / "epoch_1.pth"))
    first = before["ema_state_dict"][f"module.{name}"]
    # A step at rates near zero: the average has moved, by less than the weights have.
    moved = (last[f"module.{name}"] - first).abs().sum()
    assert 0 < (averaged[name] - before["state_dict"][name]).abs().sum() < moved
    # Batch norm's statistics are averaged as well.
    buffer = "roi_head.bbox_head.0.shared_convs.0.bn.running_var"
    assert not torch.equal(averaged[buffer], before["state_dict"][buffer])
    assert set(json.loads((run / "metrics.json").read_text())) >= {"bbox_mAP", "segm_mAP"}


@pytest.mark.slow
def test_a_schedule_by_steps_saves_evaluates_and_keeps_by_steps(tmp_path: Path):
    run = train(tmp_path, DINO)
    kept = sorted(path.name for path in run.glob("iter_*.pth"))
    assert kept == ["iter_4.pth", "iter_6.pth", "iter_8.pth"]
    assert len(list(run.glob("best_coco_bbox_mAP_iter_*.pth"))) == 1
    (log,) = run.glob("*/vis_data/scalars.json")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["step"] for line in lines if "coco/bbox_mAP" in line] == [4, 8]
    assert json.loads((run / "metrics.json").read_text())["bbox_mAP"] >= 0
