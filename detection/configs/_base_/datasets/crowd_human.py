"""CrowdHuman, full bodies, with DETR's resizing and cropping.

The annotations are its own ``.odgt`` files. At the first use the size of every image is read, and
kept in ``id_hw_train.json`` and ``id_hw_val.json`` beside them.
"""

_base_ = ["../pipelines/detr_crop.py", "../pipelines/test_1333x800.py"]

data_root = "data/CrowdHuman/"
train_ann_file = "annotation_train.odgt"
train_img_prefix = "Images/"
val_ann_file = "annotation_val.odgt"
val_img_prefix = "Images/"

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    *_base_.detr_crop,
    dict(type="PackDetInputs"),
]
test_pipeline = _base_.box_test_pipeline

train_dataloader = dict(
    batch_size=2,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    batch_sampler=dict(type="AspectRatioBatchSampler"),
    dataset=dict(
        type="CrowdHumanDataset",
        data_root=data_root,
        ann_file=train_ann_file,
        data_prefix=dict(img=train_img_prefix),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="CrowdHumanDataset",
        data_root=data_root,
        ann_file=val_ann_file,
        data_prefix=dict(img=val_img_prefix),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(
    type="CrowdHumanMetric", ann_file=data_root + val_ann_file, metric=["AP", "MR", "JI"]
)
test_evaluator = val_evaluator
