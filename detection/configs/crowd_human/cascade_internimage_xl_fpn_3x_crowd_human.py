"""Cascade R-CNN, InternImage-XL, 36 epochs on CrowdHuman.

The author has left the result open here (AP 97.2 in the summary of all tasks). 8 GPUs, 2 images
each::

    config=detection/configs/crowd_human/cascade_internimage_xl_fpn_3x_crowd_human.py
    bash detection/dist_train.sh $config 8
"""

_base_ = [
    "../_base_/models/cascade_rcnn_internimage_fpn.py",
    "../_base_/datasets/crowd_human.py",
    "../_base_/schedules/schedule_3x.py",
    "../_base_/default_runtime.py",
]

model = dict(
    backbone=dict(
        arch="xl",
        drop_path_rate=0.4,
        init_cfg=dict(type="Pretrained", checkpoint="internimage_xl_22k_192to384"),
    ),
    neck=dict(in_channels=[192, 384, 768, 1536]),
    roi_head=dict(
        bbox_head=[dict(head, num_classes=1) for head in _base_.model.roi_head.bbox_head]
    ),
)
optim_wrapper = dict(optimizer=dict(weight_decay=1e-4), paramwise_cfg=dict(layer_decay_rate=0.94))
# The original's, so one evaluation, after the last epoch; 1 follows the training.
train_cfg = dict(val_interval=100)
default_hooks = dict(checkpoint=dict(save_best="crowd_human/mAP"))
