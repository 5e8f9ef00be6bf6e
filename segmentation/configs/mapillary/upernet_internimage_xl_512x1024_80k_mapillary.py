"""UperNet, InternImage-XL, 80,000 steps on Mapillary in Cityscapes' classes: mIoU not published.

368M parameters; validated on Cityscapes. 150 outputs, 19 of them used: the released weights have
them. 8 GPUs, 2 images each::

    config=segmentation/configs/mapillary/upernet_internimage_xl_512x1024_80k_mapillary.py
    bash segmentation/dist_train.sh $config 8
"""

_base_ = [
    "../_base_/models/upernet_internimage.py",
    "../_base_/datasets/mapillary.py",
    "../_base_/schedules/schedule_80k.py",
    "../_base_/default_runtime.py",
]

model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(
        arch="xl",
        drop_path_rate=0.4,
        init_cfg=dict(type="Pretrained", checkpoint="internimage_xl_22k_192to384"),
    ),
    decode_head=dict(in_channels=[192, 384, 768, 1536]),
    auxiliary_head=dict(in_channels=768),
)
optim_wrapper = dict(
    optimizer=dict(lr=2e-5),
    paramwise_cfg=dict(layer_decay_rate=0.94),
    clip_grad=dict(max_norm=0.1, norm_type=2),
)
