"""DINO, InternImage-L, 12 epochs on COCO, a tenth of the rate for the backbone: box AP 57.6.

241M parameters. 8 GPUs, 2 images each::

    config=detection/configs/coco/dino_4scale_internimage_l_1x_coco_0.1x_backbone_lr.py
    bash detection/dist_train.sh $config 8
"""

_base_ = [
    "../_base_/models/dino_internimage.py",
    "../_base_/datasets/coco_detection.py",
    "../_base_/schedules/schedule_dino_1x.py",
    "../_base_/default_runtime.py",
]

model = dict(
    backbone=dict(
        arch="l",
        drop_path_rate=0.4,
        layer_scale=1.0,
        with_cp=False,
        init_cfg=dict(type="Pretrained", checkpoint="internimage_l_22k_192to384"),
    ),
    neck=dict(in_channels=[320, 640, 1280]),
)
optim_wrapper = dict(
    optimizer=dict(weight_decay=0.05),
    constructor="DefaultOptimWrapperConstructor",
    paramwise_cfg=dict(_delete_=True, custom_keys=dict(backbone=dict(lr_mult=0.1))),
)
