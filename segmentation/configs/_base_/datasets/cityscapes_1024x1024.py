"""Cityscapes; crops of 1024x1024."""

_base_ = "cityscapes.py"

crop_size = (1024, 1024)
train_pipeline = [
    *_base_.train_pipeline[:4],
    dict(type="RandomCrop", crop_size=crop_size, cat_max_ratio=0.75),
    *_base_.train_pipeline[5:],
]
test_pipeline = [
    *_base_.test_pipeline[:2],
    dict(type="ResizeToMultiple", size_divisor=32),
    *_base_.test_pipeline[2:],
]
tta_pipeline = [
    _base_.tta_pipeline[0],
    dict(
        type="TestTimeAug",
        transforms=[
            _base_.tta_pipeline[1].transforms[0],
            [dict(type="ResizeToMultiple", size_divisor=32)],
            *_base_.tta_pipeline[1].transforms[1:],
        ],
    ),
]

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
