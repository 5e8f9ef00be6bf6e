"""Occupancy of the drives that tools/make_driving_scenes.py draws, for a CPU, from random weights.

It learns its own two drives by heart, history included, within minutes on one core::

    python tools/make_driving_scenes.py --out data/driving_scenes
    python autonomous_driving/train.py \
        autonomous_driving/configs/occupancy_prediction/bevformer_intern_occ_tiny.py
"""

_base_ = [
    "../_base_/models/tiny.py",
    "../_base_/datasets/occ3d_nuscenes.py",
    "../_base_/schedules/schedule_tiny.py",
    "../_base_/default_runtime_by_step.py",
]

data_root = "data/driving_scenes/nuscenes"
train_ann_file = "occ_infos_temporal_train.pkl"
val_ann_file = train_ann_file  # what it has learned by heart
grid_shape = (20, 20, 4)  # voxels of 1.6 m
grid_range = (-16.0, -16.0, -1.6, 16.0, 16.0, 4.8)  # the road is the top of a layer
channels = 64
num_steps = 900  # two minutes of one core

model = dict(
    backbone=dict(out_indices=(0, 1, 2, 3)),
    neck=dict(in_channels=[16, 32, 64, 128], out_channels=channels, num_outs=4),
    view=dict(
        type="BEVFormerView",
        grid=dict(range=grid_range, shape=grid_shape[1::-1]),  # (Y, X): rows are y
        embed_dims=channels,
        num_cameras=6,
        num_levels=4,
        num_layers=2,
        num_pillar_points=4,
        num_points=4,
        num_heads=4,
        dropout=0.0,
    ),
    head=dict(
        type="OccupancyHead",
        in_channels=channels,
        num_heights=grid_shape[2],
        hidden_channels=32,
        mask="none",  # what is hidden now may have been seen before: the history's to know
    ),
)

pipeline = [
    dict(type="LoadDrivingImages"),
    dict(type="LoadOccupancy", shape=grid_shape),
    dict(type="PackDrivingInputs"),
]
train_dataloader = dict(
    batch_size=1,
    # In this process, for one thread; PyTorch refuses persistent workers where there are none.
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(data_root=data_root, queue_length=3, pipeline=pipeline),
)
val_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(data_root=data_root, ann_file=val_ann_file, pipeline=pipeline),
)
test_dataloader = val_dataloader

val_evaluator = dict(
    type="OccupancyMetric",
    mask="camera",
    with_f_score=True,
    threshold=2.0,  # metres; neighbours are 1.6 m apart
    voxel_size=1.6,
    origin=grid_range[:3],
)
test_evaluator = val_evaluator

optim_wrapper = dict(optimizer=dict(lr=3e-3))
# The whole list anew, for `num_steps`: configs do not merge lists.
param_scheduler = [
    dict(type="LinearLR", start_factor=0.05, by_epoch=False, begin=0, end=20),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=20, end=num_steps, eta_min=1e-5),
]
train_cfg = dict(max_iters=num_steps, val_interval=num_steps)

custom_hooks = [dict(type="DrivingPicturesHook")]
