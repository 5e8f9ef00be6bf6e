"""As ``large_scale.py``, with short sides of 600 to 1800 pixels in training."""

_base_ = "large_scale.py"

large_train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="RandomFlip", prob=0.5),
    dict(type="RandomResize", scale=[(2000, 600), (2000, 1800)], keep_ratio=True),
    dict(type="PackDetInputs"),
]
