"""DINO, CB-InternImage-H on BDD100K, ten classes, one scale: box AP 38.8.

2.18B parameters. A proposal of ours, as for COCO: the author published the number without a config
and does not name the model that reached it. Layers of the size of the classes start anew::

    config=detection/configs/bdd100k/dino_4scale_cbinternimage_h_objects365_bdd100k_ss.py
    bash detection/dist_train.sh $config 16
"""

_base_ = [
    "../_base_/models/cbdino_internimage_h.py",
    "../_base_/datasets/bdd100k.py",
    "../_base_/schedules/schedule_dino_20k.py",
    "../_base_/default_runtime_by_step.py",
]

model = dict(bbox_head=dict(num_classes=10))
load_from = (
    "https://huggingface.co/OpenGVLab/InternImage/resolve/main/"
    "dino_4scale_cbinternimage_h_objects365_80classes.pth"
)
