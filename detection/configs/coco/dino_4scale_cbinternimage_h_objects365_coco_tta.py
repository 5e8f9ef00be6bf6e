"""DINO, CB-InternImage-H on COCO with test-time augmentation: box AP 65.0, test-dev 65.4.

The numbers are the author's, the augmentation (``_base_/tta.py``) is a proposal of ours: theirs was
not published. The released weights are those of the ``_ss`` config::

    config=detection/configs/coco/dino_4scale_cbinternimage_h_objects365_coco_tta.py
    python detection/test.py $config dino_4scale_cbinternimage_h_objects365_coco.pth --tta
"""

_base_ = ["dino_4scale_cbinternimage_h_objects365_coco_ss.py", "../_base_/tta.py"]
