"""Argoverse 2's maps: seven images of 256 x 455, whose proportions are not kept."""

data_root = "data/argoverse2"
train_ann_file = "train_annotations.json"
val_ann_file = "val_annotations.json"

train_pipeline = [
    dict(type="LoadDrivingImages"),
    dict(type="ResizeDrivingImages", size=(256, 455)),
    dict(type="LoadVectorMap"),
    dict(type="PackDrivingInputs"),
]
test_pipeline = train_pipeline  # the head's noise on boxes and vertices is all the augmentation
train_dataloader = dict(
    # As the original has it, per GPU.
    batch_size=5,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(
        type="ArgoverseMapDataset",
        data_root=data_root,
        ann_file=train_ann_file,
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    # Frame by frame: no frame needs the one before. Repeats at the end are dropped by token.
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="ArgoverseMapDataset",
        data_root=data_root,
        ann_file=val_ann_file,
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type="VectorMapMetric")
test_evaluator = val_evaluator
