"""BDD100K, boxes of its ten classes in COCO's format; large images, one a GPU.

``detection/README.md`` says how to make the two annotation files.
"""

_base_ = "../pipelines/large_scale.py"

data_root = "data/bdd100k/"
train_ann_file = "annotations/det_train.json"
train_img_prefix = "images/100k/train/"
val_ann_file = "annotations/det_val.json"
val_img_prefix = "images/100k/val/"
classes = (
    "pedestrian",
    "rider",
    "car",
    "truck",
    "bus",
    "train",
    "motorcycle",
    "bicycle",
    "traffic light",
    "traffic sign",
)

train_pipeline = _base_.large_train_pipeline
test_pipeline = _base_.large_test_pipeline

train_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    batch_sampler=dict(type="AspectRatioBatchSampler"),
    dataset=dict(
        type="CocoDataset",
        metainfo=dict(classes=classes),
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
        type="CocoDataset",
        metainfo=dict(classes=classes),
        data_root=data_root,
        ann_file=val_ann_file,
        data_prefix=dict(img=val_img_prefix),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(
    type="CocoMetric", ann_file=data_root + val_ann_file, metric="bbox", classwise=True
)
test_evaluator = val_evaluator
