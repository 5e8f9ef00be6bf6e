"""Cascade Mask R-CNN, InternImage-XL, 36 epochs on COCO: box AP 56.2, mask AP 48.8.

387M parameters, 1782 GFLOPs at 800x1280, 0.91 s an iteration (A100). 8 GPUs, 2 images each::

    bash detection/dist_train.sh detection/configs/coco/cascade_internimage_xl_fpn_3x_coco.py 8
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
        arch="xl",
        drop_path_rate=0.6,
        init_cfg=dict(type="Pretrained", checkpoint="internimage_xl_22k_192to384"),
    ),
    neck=dict(in_channels=[192, 384, 768, 1536]),
)
optim_wrapper = dict(
    optimizer=dict(lr=2e-4), paramwise_cfg=dict(layer_decay_rate=0.9, offset_lr_scale=0.01)
)
