"""Mask2Former, InternImage-H, COCO-Stuff from 164k to 10k: mIoU 59.2, at several scales 59.6.

1.31B parameters, 1528 GFLOPs at 512x512. 40,000 steps; 16 GPUs, 1 image each::

    config=segmentation/configs/coco_stuff10k/mask2former_internimage_h_512_40k_cocostuff164k_to_10k.py
    bash segmentation/dist_train.sh $config 16
"""

_base_ = [
    "../_base_/models/mask2former_internimage_1024.py",
    "../_base_/datasets/coco_stuff10k.py",
    "../_base_/schedules/schedule_mask2former_40k.py",
    "../_base_/default_runtime.py",
]

model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(arch="h", drop_path_rate=0.5),
    decode_head=dict(
        in_channels=[320, 640, 1280, 2560],
        num_classes=171,
        loss_cls=dict(class_weight=[1.0] * 171 + [0.1]),
    ),
)
optim_wrapper = dict(optimizer=dict(lr=1e-5))
train_dataloader = dict(batch_size=1)
load_from = (
    "https://huggingface.co/OpenGVLab/InternImage/resolve/main/"
    "mask2former_internimage_h_896_80k_cocostuff164k.pth"
)
