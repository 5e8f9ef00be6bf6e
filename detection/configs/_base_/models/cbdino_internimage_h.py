"""DINO on CB-InternImage-H: two backbones of size H, the first feeds the second (CBNet).

In training both feed the detector, the first with half the weight; in a test only the second.
"""

_base_ = "dino_internimage_h.py"

model = dict(
    type="CBDINO",
    backbone=dict(type="CBInternImage", out_indices=((0, 1, 2, 3), (1, 2, 3))),
    neck=dict(type="CBChannelMapper"),
)
