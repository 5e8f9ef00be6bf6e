"""COCO 2017, boxes, with DETR's resizing and cropping: DINO T and L."""

_base_ = ["coco_instance.py", "../pipelines/detr_crop.py", "../pipelines/test_1333x800.py"]

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    *_base_.detr_crop_of_objects,
    dict(type="PackDetInputs"),
]
test_pipeline = _base_.box_test_pipeline
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

val_evaluator = dict(metric="bbox")
test_evaluator = val_evaluator
