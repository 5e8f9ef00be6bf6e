"""DINO, CB-InternImage-H, from Objects365 to COCO in 20,000 steps: box AP 64.5, one scale.

2.18B parameters. One image a GPU; the author does not say on how many (16 here)::

    config=detection/configs/coco/dino_4scale_cbinternimage_h_objects365_coco_ss.py
    bash detection/dist_train.sh $config 16
"""

_base_ = [
    "../_base_/models/cbdino_internimage_h.py",
    "../_base_/datasets/coco_detection_large.py",
    "../_base_/schedules/schedule_dino_20k.py",
    "../_base_/default_runtime_by_step.py",
]

load_from = (
    "https://huggingface.co/OpenGVLab/InternImage/resolve/main/"
    "dino_4scale_cbinternimage_h_objects365_80classes.pth"
)
