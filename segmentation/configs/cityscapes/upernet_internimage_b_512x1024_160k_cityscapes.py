"""UperNet, InternImage-B, 160,000 steps on Cityscapes: mIoU 83.18, at several scales 83.97.

128M parameters, 2369 GFLOPs at 1024x2048. 150 outputs, 19 of them used: the released weights have
them. 8 GPUs, 2 images each::

    config=segmentation/configs/cityscapes/upernet_internimage_b_512x1024_160k_cityscapes.py
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
        arch="b",
        drop_path_rate=0.4,
        init_cfg=dict(type="Pretrained", checkpoint="internimage_b_1k_224"),
    ),
    decode_head=dict(in_channels=[112, 224, 448, 896]),
    auxiliary_head=dict(in_channels=448),
)
