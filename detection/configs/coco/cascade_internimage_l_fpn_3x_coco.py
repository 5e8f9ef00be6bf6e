"""Cascade Mask R-CNN, InternImage-L, 36 epochs on COCO: box AP 56.1, mask AP 48.5.

277M parameters, 1399 GFLOPs at 800x1280, 0.79 s an iteration (A100). 8 GPUs, 2 images each::

    bash detection/dist_train.sh detection/configs/coco/cascade_internimage_l_fpn_3x_coco.py 8
"""

_base_ = [
    "../_base_/models/cascade_mask_rcnn_internimage_fpn.py",
    "../_base_/datasets/coco_instance_crop.py",
    "../_base_/schedules/schedule_3x.py",
    "../_base_/ema.py",
    "../_base_/default_runtime.py",
]

model = dict(
    backbone=dict(
        arch="l",
        drop_path_rate=0.4,
        init_cfg=dict(type="Pretrained", checkpoint="internimage_l_22k_192to384"),
    ),
    neck=dict(in_channels=[160, 320, 640, 1280]),
)
optim_wrapper = dict(
    optimizer=dict(lr=2e-4), paramwise_cfg=dict(layer_decay_rate=0.9, offset_lr_scale=0.01)
)
