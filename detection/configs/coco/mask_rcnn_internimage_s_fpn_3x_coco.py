"""Mask R-CNN, InternImage-S, 36 epochs on COCO: box AP 49.7, mask AP 44.5.

69M parameters, 340 GFLOPs at 800x1280, 0.40 s an iteration (A100). 8 GPUs, 2 images each::

    bash detection/dist_train.sh detection/configs/coco/mask_rcnn_internimage_s_fpn_3x_coco.py 8
"""

_base_ = [
    "../_base_/models/mask_rcnn_internimage_fpn.py",
    "../_base_/datasets/coco_instance_crop.py",
    "../_base_/schedules/schedule_3x.py",
    "../_base_/default_runtime.py",
]

model = dict(
    backbone=dict(
        arch="s",
        drop_path_rate=0.3,
        init_cfg=dict(type="Pretrained", checkpoint="internimage_s_1k_224"),
    ),
    neck=dict(in_channels=[80, 160, 320, 640]),
)
