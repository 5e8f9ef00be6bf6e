"""DINO, CB-InternImage-H, 26 epochs on Objects365 v2: the step before COCO.

2.18B parameters. A proposal of ours but for the number of epochs, which is the paper's: there is no
config of it. What was released came of these weights, cut to the classes of COCO and of VOC::

    config=detection/configs/objects365/dino_4scale_cbinternimage_h_objects365.py
    bash detection/dist_train.sh $config 16
"""

_base_ = [
    "../_base_/models/cbdino_internimage_h.py",
    "../_base_/datasets/objects365.py",
    "../_base_/schedules/schedule_dino_objects365.py",
    "../_base_/default_runtime.py",
]

model = dict(
    backbone=dict(init_cfg=dict(type="Pretrained", checkpoint="internimage_h_jointto22k_384")),
    bbox_head=dict(num_classes=365),
)
