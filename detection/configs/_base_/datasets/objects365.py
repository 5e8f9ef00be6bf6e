"""Objects365 v2, boxes of 365 classes; large images, one a GPU."""

_base_ = "../pipelines/large_scale_1800.py"

data_root = "data/Objects365/Obj365_v2/"
train_ann_file = "annotations/zhiyuan_objv2_train.json"
train_img_prefix = "train/"
val_ann_file = "annotations/zhiyuan_objv2_val.json"
val_img_prefix = "val/"

train_pipeline = _base_.large_train_pipeline
test_pipeline = _base_.large_test_pipeline

train_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    batch_sampler=dict(type="AspectRatioBatchSampler"),
    dataset=dict(
        type="Objects365V2Dataset",
        data_root=data_root,
        ann_file=train_ann_file,
        data_prefix=dict(img=train_img_prefix),
        filter_cfg=dict(filter_empty_gt=True, min_size=32),
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
        type="Objects365V2Dataset",
        data_root=data_root,
        ann_file=val_ann_file,
        data_prefix=dict(img=val_img_prefix),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type="CocoMetric", ann_file=data_root + val_ann_file, metric="bbox")
test_evaluator = val_evaluator
