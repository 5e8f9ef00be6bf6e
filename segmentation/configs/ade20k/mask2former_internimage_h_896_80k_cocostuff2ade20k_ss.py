"""Mask2Former, InternImage-H, from COCO-Stuff to ADE20K: mIoU 62.6, one scale.

1.31B parameters, 4635 GFLOPs at 896x896. 80,000 steps on crops of 896x896; 16 GPUs, 1 image each::

    config=segmentation/configs/ade20k/mask2former_internimage_h_896_80k_cocostuff2ade20k_ss.py
    bash segmentation/dist_train.sh $config 16
"""

_base_ = [
    "../_base_/models/mask2former_internimage_1024.py",
    "../_base_/datasets/ade20k_896.py",
    "../_base_/schedules/schedule_mask2former_80k.py",
    "../_base_/default_runtime.py",
]

model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(arch="h", drop_path_rate=0.5),
    decode_head=dict(in_channels=[320, 640, 1280, 2560]),
)
optim_wrapper = dict(optimizer=dict(lr=1e-5), clip_grad=dict(max_norm=0.1, norm_type=2))
train_cfg = dict(val_interval=2000)
load_from = (
    "https://huggingface.co/OpenGVLab/InternImage/resolve/main/"
    "mask2former_internimage_h_896_80k_cocostuff164k.pth"
)
