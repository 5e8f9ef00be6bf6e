"""DINO, CB-InternImage-H on LVIS v1 val with test-time augmentation: box AP 63.2.

The number is the author's, the augmentation (``_base_/tta.py``) is a proposal of ours: theirs was
not published. The released weights are those of the ``_ss`` configs::

    config=detection/configs/lvis/dino_4scale_cbinternimage_h_objects365_lvis_val_tta.py
    python detection/test.py $config dino_4scale_cbinternimage_h_objects365_lvis.pth --tta
"""

_base_ = ["dino_4scale_cbinternimage_h_objects365_lvis_val_ss.py", "../_base_/tta.py"]
