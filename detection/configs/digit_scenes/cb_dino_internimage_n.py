"""DINO, CB-InternImage-N, on scenes of digits: two backbones, the first feeds the second; 50 steps.

::

    python tools/make_digit_scenes.py --out data/digit_scenes
    python detection/train.py detection/configs/digit_scenes/cb_dino_internimage_n.py
"""

_base_ = "dino_internimage_n.py"

model = dict(
    type="CBDINO",
    backbone=dict(type="CBInternImage", out_indices=((0, 1, 2, 3), (1, 2, 3))),
    neck=dict(type="CBChannelMapper"),
)
optim_wrapper = dict(optimizer=dict(lr=3e-4))  # at 1e-3 its gradients grow
