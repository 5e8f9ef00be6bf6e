"""UperNet, InternImage-S, 160,000 steps on Cityscapes: mIoU 82.74, at several scales 83.45.

80M parameters, 2035 GFLOPs at 1024x2048. 150 outputs, 19 of them used: the released weights have
them. 8 GPUs, 2 images each::

    config=segmentation/configs/cityscapes/upernet_internimage_s_512x1024_160k_cityscapes.py
    bash segmentation/dist_train.sh $config 8
"""

_base_ = [
    "../_base_/models/upernet_internimage.py",
    "../_base_/datasets/cityscapes.py",
    "../_base_/schedules/schedule_160k.py",
    "../_base_/default_runtime.py",
]

model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(
        arch="s",
        drop_path_rate=0.3,
        init_cfg=dict(type="Pretrained", checkpoint="internimage_s_1k_224"),
    ),
    decode_head=dict(in_channels=[80, 160, 320, 640]),
    auxiliary_head=dict(in_channels=320),
)
