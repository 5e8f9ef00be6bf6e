"""Mask2Former, InternImage-H, 80,000 steps on COCO-Stuff 164k: mIoU 52.6, at several scales 52.8.

1.31B parameters, 4635 GFLOPs at 896x896. 16 GPUs, 1 image each::

    config=segmentation/configs/coco_stuff164k/mask2former_internimage_h_896_80k_cocostuff164k.py
    bash segmentation/dist_train.sh $config 16
"""

_base_ = [
    "../_base_/models/mask2former_internimage_1024.py",
    "../_base_/datasets/coco_stuff164k_896.py",
    "../_base_/schedules/schedule_mask2former_80k.py",
    "../_base_/default_runtime.py",
]

model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(
        arch="h",
        drop_path_rate=0.5,
        init_cfg=dict(type="Pretrained", checkpoint="internimage_h_jointto22k_384"),
    ),
    decode_head=dict(
        in_channels=[320, 640, 1280, 2560],
        num_classes=171,
        loss_cls=dict(class_weight=[1.0] * 171 + [0.1]),
    ),
)
