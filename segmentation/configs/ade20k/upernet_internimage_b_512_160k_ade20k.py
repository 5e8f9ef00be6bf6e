"""UperNet, InternImage-B, 160,000 steps on ADE20K: mIoU 50.8, at several scales 51.3.

128M parameters, 1185 GFLOPs at 512x2048. Crops of 512x512; 8 GPUs, 2 images each::

    config=segmentation/configs/ade20k/upernet_internimage_b_512_160k_ade20k.py
    bash segmentation/dist_train.sh $config 8
"""

_base_ = [
    "../_base_/models/upernet_internimage.py",
    "../_base_/datasets/ade20k.py",
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
