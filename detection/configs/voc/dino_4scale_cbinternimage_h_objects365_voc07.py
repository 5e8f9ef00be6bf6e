"""DINO, CB-InternImage-H on Pascal VOC 2007 test: AP50 94.0.

2.18B parameters, 20,000 steps on VOC 2007 and 2012 trainval. One image a GPU; the author does not
say on how many (16 here)::

    config=detection/configs/voc/dino_4scale_cbinternimage_h_objects365_voc07.py
    bash detection/dist_train.sh $config 16
"""

_base_ = [
    "../_base_/models/cbdino_internimage_h.py",
    "../_base_/datasets/voc0712.py",
    "../_base_/schedules/schedule_dino_20k.py",
    "../_base_/default_runtime_by_step.py",
]

model = dict(bbox_head=dict(num_classes=20))
optim_wrapper = dict(optimizer=dict(lr=5e-5))
train_cfg = dict(val_interval=500)
default_hooks = dict(checkpoint=dict(interval=500, save_best="pascal_voc/mAP"))
load_from = (
    "https://huggingface.co/OpenGVLab/InternImage/resolve/main/"
    "dino_4scale_cbinternimage_h_objects365_20classes.pth"
)
