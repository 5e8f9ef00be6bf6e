"""DINO, CB-InternImage-G on COCO with test-time augmentation: box AP 65.3, test-dev 65.5.

The numbers are the author's; the config and the augmentation (``_base_/tta.py``) are proposals of
ours, and no weights were released::

    config=detection/configs/coco/dino_4scale_cbinternimage_g_objects365_coco_tta.py
    python detection/test.py $config CHECKPOINT --tta
"""

_base_ = ["dino_4scale_cbinternimage_g_objects365_coco_ss.py", "../_base_/tta.py"]
