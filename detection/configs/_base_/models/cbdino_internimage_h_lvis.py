"""DINO on CB-InternImage-H for LVIS, with its federated loss.

A class that is in no label of the image is a negative only if it is drawn: 50 classes an image, by
the square root of how many images they are in. The original's option for it had no effect.
"""

_base_ = "cbdino_internimage_h.py"

model = dict(
    bbox_head=dict(
        num_classes=1203,
        fed_loss=dict(
            num_classes=50,
            frequency_power=0.5,
            ann_file="data/lvis_v1/annotations/lvis_v1_train.json",
        ),
    ),
)
