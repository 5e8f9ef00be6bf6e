"""Scenes of handwritten digits: ``python tools/make_digit_scenes.py --out DIR``; 128x128 pixels.

Eight at a time, never mirrored, read by the training process. Label 0 is what no digit covers.
"""

_base_ = "semantic.py"

data_root = "data/digit_scenes/"
train_img_prefix = "train"
train_seg_map_prefix = "semantic/train"
val_img_prefix = "val"
val_seg_map_prefix = "semantic/val"
img_suffix = ".png"
seg_map_suffix = ".png"
reduce_zero_label = False
classes = (
    *("background", "zero", "one", "two", "three", "four", "five", "six", "seven", "eight"),
    "nine",
)
palette = [
    *([0, 0, 0], [230, 25, 75], [60, 180, 75], [255, 225, 25], [67, 99, 216], [245, 130, 49]),
    *([145, 30, 180], [70, 240, 240], [240, 50, 230], [188, 246, 12], [250, 190, 212]),
]

crop_size = (96, 96)  # a step takes half of the time, and what is learned is about the same
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="CheckSegMap", num_classes=11),
    # Few digits to learn from, 1,437: each is to look like several writers'.
    dict(type="RandomResize", scale=(128, 128), ratio_range=(0.83, 1.2), keep_ratio=True),
    dict(type="RandomRotate", prob=1.0, degree=8, pad_val=0, seg_pad_val=255),
    dict(type="RandomCrop", crop_size=crop_size),
    dict(type="PackSegInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="CheckSegMap", num_classes=11),
    dict(type="PackSegInputs"),
]
tta_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(
        type="TestTimeAug",
        transforms=[
            [
                dict(type="Resize", scale_factor=ratio, keep_ratio=True)
                for ratio in (0.75, 1.0, 1.25)
            ],
            [dict(type="LoadAnnotations")],
            [dict(type="CheckSegMap", num_classes=11)],
            [dict(type="PackSegInputs")],
        ],
    ),
]

train_dataloader = dict(
    batch_size=8,
    num_workers=0,  # two cores: a second process would take one from the training
    persistent_workers=False,
    dataset=dict(
        type="BaseSegDataset",
        data_root=data_root,
        data_prefix=dict(img_path=train_img_prefix, seg_map_path=train_seg_map_prefix),
        img_suffix=img_suffix,
        seg_map_suffix=seg_map_suffix,
        reduce_zero_label=reduce_zero_label,
        metainfo=dict(classes=classes, palette=palette),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        type="BaseSegDataset",
        data_root=data_root,
        data_prefix=dict(img_path=val_img_prefix, seg_map_path=val_seg_map_prefix),
        img_suffix=img_suffix,
        seg_map_suffix=seg_map_suffix,
        reduce_zero_label=reduce_zero_label,
        metainfo=dict(classes=classes, palette=palette),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
