"""Large images for the large DINOs, long side at most 2000 pixels.

The short side is drawn from 600 to 1200 in training and 1000 in a test. COCO and Objects365 go up
to 1800, see ``large_scale_1800.py``.
"""

large_train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="RandomFlip", prob=0.5),
    dict(type="RandomResize", scale=[(2000, 600), (2000, 1200)], keep_ratio=True),
    dict(type="PackDetInputs"),
]
large_test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(2000, 1000), keep_ratio=True),
    # Behind Resize: boxes to draw or to compare stay in the original image's pixels.
    dict(type="LoadAnnotations", with_bbox=True),
    dict(
        type="PackDetInputs",
        meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor"),
    ),
]
