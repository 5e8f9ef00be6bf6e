"""SegFormer, InternImage-XL, from Mapillary to Cityscapes: mIoU 85.41, at several scales 85.93.

330M parameters, 2364 GFLOPs at 1024x2048. 150 outputs, 19 of them used: the released weights have
them. Cityscapes' coarse images are in the training. 8 GPUs, 2 images each::

    config=segmentation/configs/cityscapes/segformer_internimage_xl_512x1024_160k_mapillary2cityscapes.py
    bash segmentation/dist_train.sh $config 8
"""

_base_ = [
    "../_base_/models/segformer_internimage.py",
    "../_base_/datasets/cityscapes_extra.py",
    "../_base_/schedules/schedule_160k.py",
    "../_base_/default_runtime.py",
]

model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(arch="xl", drop_path_rate=0.4),
    decode_head=dict(in_channels=[192, 384, 768, 1536]),
)
optim_wrapper = dict(
    optimizer=dict(lr=2e-5),
    paramwise_cfg=dict(layer_decay_rate=0.94),
    clip_grad=dict(max_norm=0.1, norm_type=2),
)
train_cfg = dict(val_interval=4000)
load_from = (
    "https://huggingface.co/OpenGVLab/InternImage/resolve/main/"
    "segformer_internimage_xl_512x1024_80k_mapillary.pth"
)
