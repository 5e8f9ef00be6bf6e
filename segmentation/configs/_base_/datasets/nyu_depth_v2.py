"""NYU Depth v2, 40 classes, from the colour images alone; 640x480 pixels, crops of 480x480.

Trained at short sides of 256 to 1024 pixels.
"""

_base_ = "semantic.py"

data_root = "data/nyu_depth_v2/"
train_ann_file = "train.txt"
train_img_prefix = "image"
train_seg_map_prefix = "label40"
val_ann_file = "test.txt"
val_img_prefix = "image"
val_seg_map_prefix = "label40"
img_suffix = ".png"
seg_map_suffix = ".png"
# A 0 in a mask is "unlabelled", which is ignored; class 0 is its 1.
reduce_zero_label = True

crop_size = (480, 480)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="CheckSegMap", num_classes=40),
    dict(type="RandomResize", scale=(2048, 512), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type="RandomCrop", crop_size=crop_size, cat_max_ratio=0.75),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PhotoMetricDistortion"),
    dict(type="PackSegInputs"),
]
# In a test masks are loaded behind all that changes the image: they stay in its own pixels.
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(640, 480), keep_ratio=True),
    dict(type="ResizeToMultiple", size_divisor=32),
    dict(type="LoadAnnotations"),
    dict(type="CheckSegMap", num_classes=40),
    dict(type="PackSegInputs"),
]
tta_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(
        type="TestTimeAug",
        transforms=[
            [
                dict(type="Resize", scale=(int(640 * ratio), int(480 * ratio)), keep_ratio=True)
                for ratio in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
            ],
            [dict(type="ResizeToMultiple", size_divisor=32)],
            [dict(type="RandomFlip", prob=0.0), dict(type="RandomFlip", prob=1.0)],
            [dict(type="LoadAnnotations")],
            [dict(type="CheckSegMap", num_classes=40)],
            [dict(type="PackSegInputs")],
        ],
    ),
]

train_dataloader = dict(
    dataset=dict(
        type="NYUDepthV2Dataset",
        data_root=data_root,
        data_prefix=dict(img_path=train_img_prefix, seg_map_path=train_seg_map_prefix),
        ann_file=train_ann_file,
        img_suffix=img_suffix,
        seg_map_suffix=seg_map_suffix,
        reduce_zero_label=reduce_zero_label,
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    dataset=dict(
        type="NYUDepthV2Dataset",
        data_root=data_root,
        data_prefix=dict(img_path=val_img_prefix, seg_map_path=val_seg_map_prefix),
        ann_file=val_ann_file,
        img_suffix=img_suffix,
        seg_map_suffix=seg_map_suffix,
        reduce_zero_label=reduce_zero_label,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
