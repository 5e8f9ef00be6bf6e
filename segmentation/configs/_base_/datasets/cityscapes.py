"""Cityscapes, 19 classes; images as they are, 2048x1024, crops of 512 rows and 1024 columns."""

_base_ = "semantic.py"

data_root = "data/cityscapes/"
train_img_prefix = "leftImg8bit/train"
train_seg_map_prefix = "gtFine/train"
val_img_prefix = "leftImg8bit/val"
val_seg_map_prefix = "gtFine/val"
img_suffix = "_leftImg8bit.png"
seg_map_suffix = "_gtFine_labelTrainIds.png"
reduce_zero_label = False

crop_size = (512, 1024)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="CheckSegMap", num_classes=19),
    dict(type="RandomResize", scale=(2048, 1024), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type="RandomCrop", crop_size=crop_size, cat_max_ratio=0.75),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PhotoMetricDistortion"),
    dict(type="PackSegInputs"),
]
# In a test masks are loaded behind all that changes the image: they stay in its own pixels.
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(2048, 1024), keep_ratio=True),
    dict(type="LoadAnnotations"),
    dict(type="CheckSegMap", num_classes=19),
    dict(type="PackSegInputs"),
]
tta_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(
        type="TestTimeAug",
        transforms=[
            [
                dict(type="Resize", scale=(int(2048 * ratio), int(1024 * ratio)), keep_ratio=True)
                for ratio in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
            ],
            [dict(type="RandomFlip", prob=0.0), dict(type="RandomFlip", prob=1.0)],
            [dict(type="LoadAnnotations")],
            [dict(type="CheckSegMap", num_classes=19)],
            [dict(type="PackSegInputs")],
        ],
    ),
]

train_dataloader = dict(
    num_workers=2,
    dataset=dict(
        type="CityscapesDataset",
        data_root=data_root,
        data_prefix=dict(img_path=train_img_prefix, seg_map_path=train_seg_map_prefix),
        img_suffix=img_suffix,
        seg_map_suffix=seg_map_suffix,
        reduce_zero_label=reduce_zero_label,
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    num_workers=2,
    dataset=dict(
        type="CityscapesDataset",
        data_root=data_root,
        data_prefix=dict(img_path=val_img_prefix, seg_map_path=val_seg_map_prefix),
        img_suffix=img_suffix,
        seg_map_suffix=seg_map_suffix,
        reduce_zero_label=reduce_zero_label,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
