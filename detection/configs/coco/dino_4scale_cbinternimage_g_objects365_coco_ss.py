"""DINO, CB-InternImage-G, from Objects365 to COCO: box AP 65.1, one scale.

6B parameters. A proposal of ours: the author published the number, but neither config nor weights.
All but the backbone's size is as in the config of CB-InternImage-H; start from a model of your own
that was trained on Objects365 (``load_from``)::

    config=detection/configs/coco/dino_4scale_cbinternimage_g_objects365_coco_ss.py
    bash detection/dist_train.sh $config 16
"""

_base_ = "dino_4scale_cbinternimage_h_objects365_coco_ss.py"

model = dict(
    backbone=dict(arch="g"),
    neck=dict(in_channels=[1024, 2048, 4096]),
)
load_from = None
