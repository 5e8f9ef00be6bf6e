"""Occ3D-nuScenes as for BEVFormer: six images of 900 x 1600, three frames of history."""

data_root = "data/occ3d-nus"
train_ann_file = "occ_infos_temporal_train.pkl"
val_ann_file = "occ_infos_temporal_val.pkl"

train_pipeline = [
    dict(type="LoadDrivingImages"),
    dict(type="DrivingPhotometricDistortion"),
    dict(type="LoadOccupancy"),
    dict(type="PackDrivingInputs"),
]
# No resizing: 900 x 1600 is padded to 928 x 1600 by the preprocessor.
test_pipeline = [
    dict(type="LoadDrivingImages"),
    dict(type="LoadOccupancy"),
    dict(type="PackDrivingInputs"),
]
train_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(
        type="Occ3DDataset",
        data_root=data_root,
        ann_file=train_ann_file,
        queue_length=4,  # three frames of history and the one that is learnt
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    # Frames of a scene in order, all on one process: the model keeps the view of the last one.
    sampler=dict(type="SceneSampler"),
    dataset=dict(
        type="Occ3DDataset",
        data_root=data_root,
        ann_file=val_ann_file,
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = val_dataloader

# The benchmark scores what cameras see; the loss is over all voxels.
val_evaluator = dict(type="OccupancyMetric", mask="camera")
test_evaluator = val_evaluator
