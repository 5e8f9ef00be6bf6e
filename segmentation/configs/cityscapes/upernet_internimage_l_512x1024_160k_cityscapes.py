"""UperNet, InternImage-L, 160,000 steps on Cityscapes: mIoU 83.68, at several scales 84.41.

256M parameters, 3234 GFLOPs at 1024x2048. 150 outputs, 19 of them used: the released weights have
them. 8 GPUs, 2 images each::

    config=segmentation/configs/cityscapes/upernet_internimage_l_512x1024_160k_cityscapes.py
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
        arch="l",
        drop_path_rate=0.4,
        init_cfg=dict(type="Pretrained", checkpoint="internimage_l_22k_192to384"),
    ),
    decode_head=dict(in_channels=[160, 320, 640, 1280]),
    auxiliary_head=dict(in_channels=640),
)
optim_wrapper = dict(
    optimizer=dict(lr=2e-5),
    paramwise_cfg=dict(layer_decay_rate=0.94),
    clip_grad=dict(max_norm=0.1, norm_type=2),
)
