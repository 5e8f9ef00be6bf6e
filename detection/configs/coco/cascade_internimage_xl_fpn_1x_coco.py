"""Cascade Mask R-CNN, InternImage-XL, 12 epochs on COCO: box AP 55.3, mask AP 48.1.

387M parameters, 1782 GFLOPs at 800x1280, 0.82 s an iteration (A100). 8 GPUs, 2 images each::

    bash detection/dist_train.sh detection/configs/coco/cascade_internimage_xl_fpn_1x_coco.py 8
"""

_base_ = [
    "../_base_/models/cascade_mask_rcnn_internimage_fpn.py",
    "../_base_/datasets/coco_instance.py",
    "../_base_/schedules/schedule_1x.py",
    "../_base_/default_runtime.py",
]

model = dict(
    backbone=dict(
        arch="xl",
        drop_path_rate=0.4,
        init_cfg=dict(type="Pretrained", checkpoint="internimage_xl_22k_192to384"),
    ),
    neck=dict(in_channels=[192, 384, 768, 1536]),
)
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.94))
