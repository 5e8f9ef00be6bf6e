"""COCO 2017, boxes and masks, with DETR's resizing and cropping: the long schedules."""

_base_ = ["coco_instance.py", "../pipelines/detr_crop.py"]

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    *_base_.detr_crop,
    dict(type="PackDetInputs"),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
