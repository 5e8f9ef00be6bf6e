"""Pascal VOC 2007 and 2012 for training, 2007 for the test; large images, one a GPU.

Both training lists are read three times in a row, as one epoch. ``train_ann_file`` and
``train_img_prefix`` are lists here, an entry a year.
"""

_base_ = "../pipelines/large_scale.py"

data_root = "data/VOCdevkit/"
train_ann_file = ["VOC2007/ImageSets/Main/trainval.txt", "VOC2012/ImageSets/Main/trainval.txt"]
train_img_prefix = ["VOC2007/", "VOC2012/"]
val_ann_file = "VOC2007/ImageSets/Main/test.txt"
val_img_prefix = "VOC2007/"

train_pipeline = _base_.large_train_pipeline
test_pipeline = _base_.large_test_pipeline

train_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    batch_sampler=dict(type="AspectRatioBatchSampler"),
    dataset=dict(
        type="RepeatDataset",
        times=3,
        dataset=dict(
            type="ConcatDataset",
            # The years differ in it, and a concatenation must agree in all else.
            ignore_keys=["dataset_type"],
            datasets=[
                dict(
                    type="VOCDataset",
                    data_root=data_root,
                    ann_file=train_ann_file[0],
                    data_prefix=dict(sub_data_root=train_img_prefix[0]),
                    # No bbox_min_size: small boxes are learnt, as the author did.
                    filter_cfg=dict(filter_empty_gt=True, min_size=32),
                    pipeline=train_pipeline,
                ),
                dict(
                    type="VOCDataset",
                    data_root=data_root,
                    ann_file=train_ann_file[1],
                    data_prefix=dict(sub_data_root=train_img_prefix[1]),
                    filter_cfg=dict(filter_empty_gt=True, min_size=32),
                    pipeline=train_pipeline,
                ),
            ],
        ),
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="VOCDataset",
        data_root=data_root,
        ann_file=val_ann_file,
        data_prefix=dict(sub_data_root=val_img_prefix),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

# VOC 2007 averages precision over 11 recalls, later years take the area.
val_evaluator = dict(type="VOCMetric", metric="mAP", eval_mode="11points")
test_evaluator = val_evaluator
