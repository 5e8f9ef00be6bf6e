"""ISPRS Potsdam, 6 classes from the air; tiles of 512x512."""

_base_ = "semantic.py"

data_root = "data/potsdam"
train_img_prefix = "img_dir/train"
train_seg_map_prefix = "ann_dir/train"
val_img_prefix = "img_dir/val"
val_seg_map_prefix = "ann_dir/val"
img_suffix = ".png"
seg_map_suffix = ".png"
# A 0 in a mask is a border between objects, which is ignored; class 0 is its 1.
reduce_zero_label = True

crop_size = (512, 512)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="CheckSegMap", num_classes=6),
    dict(type="RandomResize", scale=(512, 512), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type="RandomCrop", crop_size=crop_size, cat_max_ratio=0.75),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PhotoMetricDistortion"),
    dict(type="PackSegInputs"),
]
# In a test masks are loaded behind all that changes the image: they stay in its own pixels.
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(512, 512), keep_ratio=True),
    dict(type="ResizeToMultiple", size_divisor=32),
    dict(type="LoadAnnotations"),
    dict(type="CheckSegMap", num_classes=6),
    dict(type="PackSegInputs"),
]
tta_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(
        type="TestTimeAug",
        transforms=[
            [
                dict(type="Resize", scale=(int(512 * ratio), int(512 * ratio)), keep_ratio=True)
                for ratio in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
            ],
            [dict(type="ResizeToMultiple", size_divisor=32)],
            [dict(type="RandomFlip", prob=0.0), dict(type="RandomFlip", prob=1.0)],
            [dict(type="LoadAnnotations")],
            [dict(type="CheckSegMap", num_classes=6)],
            [dict(type="PackSegInputs")],
        ],
    ),
]

train_dataloader = dict(
    dataset=dict(
        type="PotsdamDataset",
        data_root=data_root,
        data_prefix=dict(img_path=train_img_prefix, seg_map_path=train_seg_map_prefix),
        img_suffix=img_suffix,
        seg_map_suffix=seg_map_suffix,
        reduce_zero_label=reduce_zero_label,
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    dataset=dict(
        type="PotsdamDataset",
        data_root=data_root,
        data_prefix=dict(img_path=val_img_prefix, seg_map_path=val_seg_map_prefix),
        img_suffix=img_suffix,
        seg_map_suffix=seg_map_suffix,
        reduce_zero_label=reduce_zero_label,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
