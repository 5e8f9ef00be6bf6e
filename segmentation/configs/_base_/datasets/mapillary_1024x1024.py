"""Mapillary Vistas in Cityscapes' classes; crops of 1024x1024."""

_base_ = "mapillary.py"

crop_size = (1024, 1024)
train_pipeline = [
    *_base_.train_pipeline[:4],
    dict(type="RandomCrop", crop_size=crop_size, cat_max_ratio=0.75),
    *_base_.train_pipeline[5:],
]

train_dataloader = dict(
    dataset=dict(
        datasets=[
            dict(dataset, pipeline=train_pipeline)
            for dataset in _base_.train_dataloader.dataset.datasets
        ]
    )
)
