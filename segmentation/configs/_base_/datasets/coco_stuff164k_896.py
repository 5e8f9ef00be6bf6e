"""COCO-Stuff, 164,000 images; short side 896 pixels, crops of 896x896, one image a GPU."""

_base_ = "coco_stuff164k.py"

crop_size = (896, 896)
train_pipeline = [
    *_base_.train_pipeline[:3],
    dict(type="RandomResize", scale=(3584, 896), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type="RandomCrop", crop_size=crop_size, cat_max_ratio=0.75),
    *_base_.train_pipeline[5:],
]
test_pipeline = [
    _base_.test_pipeline[0],
    dict(type="Resize", scale=(3584, 896), keep_ratio=True),
    *_base_.test_pipeline[2:],
]
tta_pipeline = [
    _base_.tta_pipeline[0],
    dict(
        type="TestTimeAug",
        transforms=[
            [
                dict(type="Resize", scale=(int(3584 * ratio), int(896 * ratio)), keep_ratio=True)
                for ratio in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
            ],
            *_base_.tta_pipeline[1].transforms[1:],
        ],
    ),
]

train_dataloader = dict(batch_size=1, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
