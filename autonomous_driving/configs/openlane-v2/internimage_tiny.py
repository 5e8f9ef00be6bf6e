"""Lanes of the drives that tools/make_driving_scenes.py draws, for a CPU, from random weights.

It learns its own two drives by heart, lanes, traffic elements and topology, within minutes on one
core::

    python tools/make_driving_scenes.py --out data/driving_scenes
    python autonomous_driving/train.py autonomous_driving/configs/openlane-v2/internimage_tiny.py
"""

_base_ = [
    "../_base_/models/tiny.py",
    "../_base_/datasets/openlane_v2_subset_a.py",
    "../_base_/schedules/schedule_tiny.py",
    "../_base_/default_runtime_by_step.py",
]

data_root = "data/driving_scenes/openlane"
# What it has learned by heart, the frames of training.
val_ann_file = "data_dict_subset_A_train.pkl"
lane_range = (-51.2, -25.6, -2.3, 51.2, 25.6, 1.7)  # metres
image_size = (96, 128)  # multiples of 32, so that nothing is padded
channels = 64
num_steps = 900  # two minutes of one core

decoder = dict(num_layers=2, num_heads=4, num_points=4, feedforward_channels=128, dropout=0.0)
model = dict(
    # A fourth stage would have 3 x 4 pixels.
    backbone=dict(depths=(1, 1, 2), groups=(1, 2, 4), out_indices=(0, 1, 2)),
    neck=dict(in_channels=[16, 32, 64], out_channels=channels, num_outs=3),
    view=dict(
        type="BEVFormerView",
        grid=dict(range=lane_range, shape=(16, 32)),
        embed_dims=channels,
        num_cameras=7,
        num_levels=3,
        num_layers=1,
        num_pillar_points=4,
        num_points=4,
        num_heads=4,
        dropout=0.0,
        uses_history=False,
    ),
    head=dict(
        type="OpenLaneHead",
        range=lane_range,
        embed_dims=channels,
        lanes=dict(num_queries=24, **decoder),
        elements=dict(num_queries=12, num_levels=3, **decoder),
        # The weight of the full size is made for many days of training.
        control_weight=0.05,
    ),
)

pipeline = [
    dict(type="LoadDrivingImages"),
    dict(type="ResizeDrivingImages", size=image_size),
    dict(type="LoadOpenLane", for_scoring=True),  # a pickle of `train` has all 201 points
    dict(type="PackDrivingInputs", meta_keys=("identifier",)),
]
train_dataloader = dict(
    batch_size=1,
    # In this process, for one thread; PyTorch refuses persistent workers where there are none.
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(data_root=data_root, pipeline=pipeline),
)
val_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(data_root=data_root, ann_file=val_ann_file, pipeline=pipeline),
)
test_dataloader = val_dataloader

optim_wrapper = dict(clip_grad=dict(max_norm=35.0))
# The whole list anew, for `num_steps`: configs do not merge lists.
param_scheduler = [
    dict(type="LinearLR", start_factor=0.05, by_epoch=False, begin=0, end=20),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=20, end=num_steps, eta_min=1e-5),
]
train_cfg = dict(max_iters=num_steps, val_interval=num_steps)

custom_hooks = [dict(type="DrivingPicturesHook")]
