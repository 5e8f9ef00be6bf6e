"""UperNet, InternImage-G, 160,000 steps on ADE20K: mIoU not published, weights not released.

3.11B parameters, activations recomputed. Crops of 896x896; 16 GPUs, 1 image each::

    config=segmentation/configs/ade20k/upernet_internimage_g_896_160k_ade20k.py
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
        arch="g",
        drop_path_rate=0.5,
        layer_scale=None,
        with_cp=True,
        init_cfg=dict(type="Pretrained", checkpoint="internimage_g_pretrainto22k_384"),
    ),
    decode_head=dict(in_channels=[512, 1024, 2048, 4096]),
    auxiliary_head=dict(in_channels=2048),
)
optim_wrapper = dict(
    optimizer=dict(lr=2e-5),
    paramwise_cfg=dict(layer_decay_rate=0.95),
    clip_grad=dict(max_norm=0.1, norm_type=2),
)
