"""Mask R-CNN, InternImage-T, 36 epochs on COCO: box AP 49.1, mask AP 43.7.

49M parameters, 270 GFLOPs at 800x1280, 0.34 s an iteration (A100). 8 GPUs, 2 images each::

    bash detection/dist_train.sh detection/configs/coco/mask_rcnn_internimage_t_fpn_3x_coco.py 8
"""

_base_ = [
    "../_base_/models/mask_rcnn_internimage_fpn.py",
    "../_base_/datasets/coco_instance_crop.py",
    "../_base_/schedules/schedule_3x.py",
    "../_base_/default_runtime.py",
]

model = dict(
    backbone=dict(
        arch="t",
        drop_path_rate=0.2,
        init_cfg=dict(type="Pretrained", checkpoint="internimage_t_1k_224"),
    ),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
