"""Mask2Former, InternImage-H, from Mapillary to Cityscapes: mIoU 86.37, at several scales 86.96.

1.09B parameters, 7878 GFLOPs at 1024x2048; sliding windows of 1024x1024. Cityscapes' coarse images
are in the training. 8 GPUs, 2 images each::

    config=segmentation/configs/cityscapes/mask2former_internimage_h_1024x1024_80k_mapillary2cityscapes.py
    bash segmentation/dist_train.sh $config 8
"""

_base_ = [
    "../_base_/models/mask2former_internimage.py",
    "../_base_/datasets/cityscapes_extra_1024x1024.py",
    "../_base_/schedules/schedule_mask2former_80k.py",
    "../_base_/default_runtime.py",
]

model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(arch="h", drop_path_rate=0.5),
    decode_head=dict(
        in_channels=[320, 640, 1280, 2560],
        num_classes=19,
        loss_cls=dict(class_weight=[1.0] * 19 + [0.1]),
    ),
    test_cfg=dict(mode="slide", crop_size=(1024, 1024), stride=(512, 512)),
)
optim_wrapper = dict(optimizer=dict(lr=1e-5), clip_grad=dict(max_norm=0.1, norm_type=2))
train_cfg = dict(val_interval=2000)
load_from = (
    "https://huggingface.co/OpenGVLab/InternImage/resolve/main/"
    "mask2former_internimage_h_896x896_80k_mapillary.pth"
)
