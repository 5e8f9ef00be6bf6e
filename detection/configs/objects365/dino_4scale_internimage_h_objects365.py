"""DINO, InternImage-H, 26 epochs on Objects365 v2: the step before COCO.

1.1B parameters. A proposal of ours but for the number of epochs, which is the paper's: there is no
config of it. The author trained one and did not release it::

    config=detection/configs/objects365/dino_4scale_internimage_h_objects365.py
    bash detection/dist_train.sh $config 16
"""

_base_ = [
    "../_base_/models/dino_internimage_h.py",
    "../_base_/datasets/objects365.py",
    "../_base_/schedules/schedule_dino_objects365.py",
    "../_base_/default_runtime.py",
]

model = dict(
    backbone=dict(init_cfg=dict(type="Pretrained", checkpoint="internimage_h_jointto22k_384")),
    bbox_head=dict(num_classes=365),
)
