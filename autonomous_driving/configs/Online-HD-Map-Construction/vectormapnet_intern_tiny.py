"""Maps of the drives that tools/make_driving_scenes.py draws, for a CPU, from random weights.

It learns its own two drives by heart within minutes on one core::

    python tools/make_driving_scenes.py --out data/driving_scenes
    python autonomous_driving/train.py \
        autonomous_driving/configs/Online-HD-Map-Construction/vectormapnet_intern_tiny.py
"""

_base_ = [
    "../_base_/models/tiny.py",
    "../_base_/datasets/argoverse2_map.py",
    "../_base_/schedules/schedule_tiny.py",
    "../_base_/default_runtime_by_step.py",
]

data_root = "data/driving_scenes/argoverse2"
train_ann_file = "train_annotations.json"
val_ann_file = train_ann_file  # what it has learned by heart
channels = 64
num_steps = 400  # a good minute of one core

model = dict(
    backbone=dict(out_indices=(0, 1, 2, 3)),
    neck=dict(in_channels=[16, 32, 64, 128], out_channels=channels, num_outs=4),
    view=dict(
        type="IPMView",
        grid=dict(range=(-30.0, -15.0, -1.1, 30.0, 15.0, 1.1), shape=(40, 80)),
        heights=(0.0,),  # where all lines of these drives are
        in_channels=channels,
        trunk_channels=64,
        out_channels=channels,
    ),
    head=dict(
        type="VectorMapHead",
        in_channels=channels,
        detector=dict(
            embed_dims=64,
            num_queries=20,
            num_layers=2,
            feedforward_channels=128,
            dropout_rate=0.0,
        ),
        generator=dict(
            embed_dims=64,
            num_layers=2,
            feedforward_channels=128,
            dropout_rate=0.0,
        ),
        max_elements=20,
        max_vertices=32,
    ),
)

pipeline = [
    dict(type="LoadDrivingImages"),
    # Multiples of 32 near the drawn 100 x 132, so that nothing is padded.
    dict(type="ResizeDrivingImages", size=(96, 128)),
    dict(type="LoadVectorMap"),
    dict(type="PackDrivingInputs"),
]
train_dataloader = dict(
    batch_size=2,
    # In this process, for one thread; PyTorch refuses persistent workers where there are none.
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(data_root=data_root, ann_file=train_ann_file, pipeline=pipeline),
)
val_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(data_root=data_root, ann_file=val_ann_file, pipeline=pipeline),
)
test_dataloader = val_dataloader

# The whole list anew, for `num_steps`: configs do not merge lists.
param_scheduler = [
    dict(type="LinearLR", start_factor=0.05, by_epoch=False, begin=0, end=20),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=20, end=num_steps, eta_min=1e-5),
]
train_cfg = dict(max_iters=num_steps, val_interval=num_steps)

custom_hooks = [dict(type="DrivingPicturesHook")]
