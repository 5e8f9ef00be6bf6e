"""Mask2Former, InternImage-H, from COCO-Stuff to ADE20K: mIoU 62.9, five scales and mirrored.

The model, its training and the released weights are those of the ``_ss`` config. ``test.py`` tests
at short sides of 768 to 1024 pixels here, as if ``--tta`` were given; in training one scale is
validated::

    config=segmentation/configs/ade20k/mask2former_internimage_h_896_80k_cocostuff2ade20k_ms.py
    python segmentation/test.py $config mask2former_internimage_h_896_80k_cocostuff2ade20k.pth
"""

_base_ = "mask2former_internimage_h_896_80k_cocostuff2ade20k_ss.py"

tta = True
tta_pipeline = [
    _base_.tta_pipeline[0],
    dict(
        type="TestTimeAug",
        transforms=[
            [
                dict(type="Resize", scale=(4 * side, side), keep_ratio=True)
                for side in (768, 832, 896, 960, 1024)
            ],
            *_base_.tta_pipeline[1].transforms[1:],
        ],
    ),
]
