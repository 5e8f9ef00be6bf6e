"""OpenLane-V2, subset A: seven images, the upright front view laid into the others' size."""

data_root = "data/OpenLane-V2"
train_ann_file = "data_dict_subset_A_train.pkl"
val_ann_file = "data_dict_subset_A_val.pkl"

train_pipeline = [
    dict(type="LoadDrivingImages"),
    # On pixels of 0-255, not behind the normalisation as in the original.
    dict(type="DrivingPhotometricDistortion"),
    dict(type="ResizeDrivingImages", size=(1550, 2048)),
    dict(type="LoadOpenLane"),
    # The identifier names the frame in a submission.
    dict(type="PackDrivingInputs", meta_keys=("identifier",)),
]
test_pipeline = [
    dict(type="LoadDrivingImages"),
    dict(type="ResizeDrivingImages", size=(1550, 2048)),
    dict(type="LoadOpenLane"),
    dict(type="PackDrivingInputs", meta_keys=("identifier",)),
]
train_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(
        type="OpenLaneDataset",
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
        type="OpenLaneDataset",
        data_root=data_root,
        ann_file=val_ann_file,
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type="OpenLaneMetric")
test_evaluator = val_evaluator
