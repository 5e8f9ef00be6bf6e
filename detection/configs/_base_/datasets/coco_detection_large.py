"""COCO 2017, boxes, large images, one a GPU: DINO H, G and CB-H."""

_base_ = ["coco_instance.py", "../pipelines/large_scale_1800.py"]

train_pipeline = _base_.large_train_pipeline
test_pipeline = _base_.large_test_pipeline

train_dataloader = dict(
    batch_size=1,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(pipeline=train_pipeline),
)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

val_evaluator = dict(metric="bbox")
test_evaluator = val_evaluator
