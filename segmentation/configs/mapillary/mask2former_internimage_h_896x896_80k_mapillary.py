"""Mask2Former, InternImage-H, 80,000 steps on Mapillary in Cityscapes' classes: no mIoU published.

1.09B parameters; validated on Cityscapes in sliding windows of 896x896. 8 GPUs, 2 images each::

    config=segmentation/configs/mapillary/mask2former_internimage_h_896x896_80k_mapillary.py
    bash segmentation/dist_train.sh $config 8
"""

_base_ = [
    "../_base_/models/mask2former_internimage.py",
    "../_base_/datasets/mapillary_896x896.py",
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
        num_classes=19,
        loss_cls=dict(class_weight=[1.0] * 19 + [0.1]),
    ),
    test_cfg=dict(mode="slide", crop_size=(896, 896), stride=(512, 512)),
)
optim_wrapper = dict(clip_grad=dict(max_norm=0.1, norm_type=2))
train_cfg = dict(val_interval=2000)
