"""DINO, CB-InternImage-H on OpenImages v6, one scale: mAP 74.1.

2.18B parameters, 100,000 steps. One image a GPU; the author does not say on how many (16 here)::

    config=detection/configs/openimages/dino_4scale_cbinternimage_h_objects365_openimages_ss.py
    bash detection/dist_train.sh $config 16
"""

_base_ = [
    "../_base_/models/cbdino_internimage_h.py",
    "../_base_/datasets/openimages.py",
    "../_base_/schedules/schedule_dino_20k.py",
    "../_base_/default_runtime_by_step.py",
]

model = dict(bbox_head=dict(num_classes=601))
train_cfg = dict(max_iters=100000, val_interval=2000)
default_hooks = dict(checkpoint=dict(interval=2000, save_best="openimages/mAP"))
load_from = (
    "https://huggingface.co/OpenGVLab/InternImage/resolve/main/"
    "dino_4scale_cbinternimage_h_objects365_80classes.pth"
)
