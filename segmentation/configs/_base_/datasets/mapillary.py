"""Mapillary Vistas 1.2, both parts, in the 19 classes of Cityscapes, on which it is validated.

Images of half to all of 2048x1024 pixels, crops of 512 rows and 1024 columns.
"""

_base_ = "cityscapes.py"

data_root = "data/"
train_img_prefix = ["Mapillary/training/images", "Mapillary/validation/images"]
train_seg_map_prefix = ["Mapillary/training/labels", "Mapillary/validation/labels"]
val_img_prefix = "cityscapes/leftImg8bit/val"
val_seg_map_prefix = "cityscapes/gtFine/val"

train_pipeline = [
    *_base_.train_pipeline[:3],
    dict(type="RandomResize", scale=(2048, 1024), ratio_range=(0.5, 1.0), keep_ratio=True),
    *_base_.train_pipeline[4:],
]

train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type="ConcatDataset",
        datasets=[
            dict(
                type="MapillaryToCityscapesDataset",
                data_root=data_root,
                data_prefix=dict(img_path=images, seg_map_path=masks),
                pipeline=train_pipeline,
            )
            for images, masks in zip(train_img_prefix, train_seg_map_prefix, strict=True)
        ],
    )
)
val_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        data_prefix=dict(img_path=val_img_prefix, seg_map_path=val_seg_map_prefix),
    )
)
test_dataloader = val_dataloader
