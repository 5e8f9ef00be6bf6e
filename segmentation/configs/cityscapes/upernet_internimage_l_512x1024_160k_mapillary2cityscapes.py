"""UperNet, InternImage-L, from Mapillary to Cityscapes: mIoU 85.94, at several scales 86.22.

256M parameters, 3234 GFLOPs at 1024x2048. 150 outputs, 19 of them used: the released weights have
them. The backbone starts from SegFormer's weights for Mapillary, as the author's did; Cityscapes'
coarse images are in the training. 8 GPUs, 2 images each::

    config=segmentation/configs/cityscapes/upernet_internimage_l_512x1024_160k_mapillary2cityscapes.py
    bash segmentation/dist_train.sh $config 8
"""

_base_ = [
    "../_base_/models/upernet_internimage.py",
    "../_base_/datasets/cityscapes_extra.py",
    "../_base_/schedules/schedule_160k.py",
    "../_base_/default_runtime.py",
]

model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(arch="l", drop_path_rate=0.4),
    decode_head=dict(in_channels=[160, 320, 640, 1280]),
    auxiliary_head=dict(in_channels=640),
)
optim_wrapper = dict(
    optimizer=dict(lr=2e-5),
    paramwise_cfg=dict(layer_decay_rate=0.94),
    clip_grad=dict(max_norm=0.1, norm_type=2),
)
train_cfg = dict(val_interval=4000)
load_from = (
    "https://huggingface.co/OpenGVLab/InternImage/resolve/main/"
    "segformer_internimage_l_512x1024_80k_mapillary.pth"
)
