"""UperNet, InternImage-H, 160,000 steps on ADE20K: mIoU 59.9, at several scales 60.3.

1.12B parameters, 3566 GFLOPs at 896x896. Crops of 896x896; 16 GPUs, 1 image each::

    config=segmentation/configs/ade20k/upernet_internimage_h_896_160k_ade20k.py
    bash segmentation/dist_train.sh $config 16
"""

_base_ = [
    "../_base_/models/upernet_internimage.py",
    "../_base_/datasets/ade20k_896.py",
    "../_base_/schedules/schedule_160k.py",
    "../_base_/default_runtime.py",
]

model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(
        arch="h",
        drop_path_rate=0.5,
        layer_scale=None,
        init_cfg=dict(type="Pretrained", checkpoint="internimage_h_jointto22k_384"),
    ),
    decode_head=dict(in_channels=[320, 640, 1280, 2560]),
    auxiliary_head=dict(in_channels=1280),
)
optim_wrapper = dict(
    optimizer=dict(lr=2e-5),
    paramwise_cfg=dict(layer_decay_rate=0.95),
    clip_grad=dict(max_norm=0.1, norm_type=2),
)
