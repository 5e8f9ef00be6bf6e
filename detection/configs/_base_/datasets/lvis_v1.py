"""LVIS v1, boxes of 1203 classes, validated on ``lvis_v1_val``; large images, one a GPU.

Images with rare classes (in fewer than one in a thousand) are repeated. The images are COCO's:
``train2017`` and ``val2017`` lie beside ``annotations``, and the annotations name the folder.
"""

_base_ = "../pipelines/large_scale.py"

data_root = "data/lvis_v1/"
train_ann_file = "annotations/lvis_v1_train.json"
train_img_prefix = ""
val_ann_file = "annotations/lvis_v1_val.json"
val_img_prefix = ""

train_pipeline = _base_.large_train_pipeline
test_pipeline = _base_.large_test_pipeline

train_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    batch_sampler=dict(type="AspectRatioBatchSampler"),
    dataset=dict(
        type="ClassBalancedDataset",
        oversample_thr=1e-3,
        dataset=dict(
            type="LVISV1Dataset",
            data_root=data_root,
            ann_file=train_ann_file,
            data_prefix=dict(img=train_img_prefix),
            filter_cfg=dict(filter_empty_gt=True, min_size=32),
            pipeline=train_pipeline,
        ),
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="LVISV1Dataset",
        data_root=data_root,
        ann_file=val_ann_file,
        data_prefix=dict(img=val_img_prefix),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(
    type="LVISMetric", ann_file=data_root + val_ann_file, metric=["bbox"], classwise=True
)
test_evaluator = val_evaluator
