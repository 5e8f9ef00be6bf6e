"""OpenImages v6, boxes of 601 classes; large images, one a GPU, drawn evenly over the classes.

The annotations are its own CSV files. The two ``image-metas.pkl`` hold the size of each image.
"""

_base_ = "../pipelines/large_scale.py"

data_root = "data/OpenImages/"
train_ann_file = "annotations/oidv6-train-annotations-bbox.csv"
train_img_prefix = "train/"
val_ann_file = "annotations/validation-annotations-bbox.csv"
val_img_prefix = "validation/"

train_pipeline = _base_.large_train_pipeline
test_pipeline = [
    *_base_.large_test_pipeline[:-1],
    dict(
        type="PackDetInputs",
        # The last two are for the metric: groups of objects, and what images surely lack.
        meta_keys=(
            "img_id",
            "img_path",
            "ori_shape",
            "img_shape",
            "scale_factor",
            "instances",
            "image_level_labels",
        ),
    ),
]

train_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type="ClassAwareSampler", num_sample_class=1),
    batch_sampler=dict(type="AspectRatioBatchSampler"),
    dataset=dict(
        type="OpenImagesDataset",
        data_root=data_root,
        ann_file=train_ann_file,
        data_prefix=dict(img=train_img_prefix),
        label_file="annotations/class-descriptions-boxable.csv",
        hierarchy_file="annotations/bbox_labels_600_hierarchy.json",
        meta_file="annotations/train-image-metas.pkl",
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
        type="OpenImagesDataset",
        data_root=data_root,
        ann_file=val_ann_file,
        data_prefix=dict(img=val_img_prefix),
        label_file="annotations/class-descriptions-boxable.csv",
        hierarchy_file="annotations/bbox_labels_600_hierarchy.json",
        meta_file="annotations/validation-image-metas.pkl",
        image_level_ann_file="annotations/validation-annotations-human-imagelabels-boxable.csv",
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(
    type="OpenImagesMetric",
    iou_thrs=0.5,
    ioa_thrs=0.5,
    use_group_of=True,
    get_supercategory=True,
)
test_evaluator = val_evaluator
