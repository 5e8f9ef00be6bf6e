"""DINO, InternImage-G, from Objects365 to COCO in 20,000 steps: box AP 64.2, one scale.

3.1B parameters. One image a GPU; the author does not say on how many (16 here). ``load_from`` is
for a model that was trained on Objects365; there is no released one::

    config=detection/configs/coco/dino_4scale_internimage_g_objects365_coco_ss.py
    bash detection/dist_train.sh $config 16
"""

_base_ = [
    "../_base_/models/dino_internimage_g.py",
    "../_base_/datasets/coco_detection_large.py",
    "../_base_/schedules/schedule_dino_20k.py",
    "../_base_/default_runtime_by_step.py",
]
