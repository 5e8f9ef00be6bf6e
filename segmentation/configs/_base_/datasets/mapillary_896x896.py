"""Mapillary Vistas in Cityscapes' classes; half of 2048x1024 to twice that, crops of 896x896."""

_base_ = "mapillary.py"

crop_size = (896, 896)
train_pipeline = [
    *_base_.train_pipeline[:3],
    dict(type="RandomResize", scale=(2048, 1024), ratio_range=(0.5, 2.0), keep_ratio=True),
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

train_dataloader = dict(
    dataset=dict(
        datasets=[
            dict(dataset, pipeline=train_pipeline)
            for dataset in _base_.train_dataloader.dataset.datasets
        ]
    )
)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
