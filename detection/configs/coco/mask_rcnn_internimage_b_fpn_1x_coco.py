"""Mask R-CNN, InternImage-B, 12 epochs on COCO: box AP 48.8, mask AP 44.0.

115M parameters, 501 GFLOPs at 800x1280, 0.45 s an iteration (A100). 8 GPUs, 2 images each::

    bash detection/dist_train.sh detection/configs/coco/mask_rcnn_internimage_b_fpn_1x_coco.py 8
"""

_base_ = [
    "../_base_/models/mask_rcnn_internimage_fpn.py",
    "../_base_/datasets/coco_instance.py",
    "../_base_/schedules/schedule_1x.py",
    "../_base_/default_runtime.py",
]

model = dict(
    backbone=dict(
        arch="b",
        drop_path_rate=0.4,
        init_cfg=dict(type="Pretrained", checkpoint="internimage_b_1k_224"),
    ),
    neck=dict(in_channels=[112, 224, 448, 896]),
)
