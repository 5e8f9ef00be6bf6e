"""DINO, CB-InternImage-H on LVIS v1 minival, one scale: box AP 65.8.

2.18B parameters, 80,000 steps. One image a GPU; the author does not say on how many (16 here)::

    config=detection/configs/lvis/dino_4scale_cbinternimage_h_objects365_lvis_minival_ss.py
    bash detection/dist_train.sh $config 16
"""

_base_ = [
    "../_base_/models/cbdino_internimage_h_lvis.py",
    "../_base_/datasets/lvis_v1_minival.py",
    "../_base_/schedules/schedule_dino_20k.py",
    "../_base_/default_runtime_by_step.py",
]

train_cfg = dict(max_iters=80000, val_interval=500)
default_hooks = dict(checkpoint=dict(interval=500, max_keep_ckpts=10, save_best=None))
load_from = (
    "https://huggingface.co/OpenGVLab/InternImage/resolve/main/"
    "dino_4scale_cbinternimage_h_objects365_80classes.pth"
)
