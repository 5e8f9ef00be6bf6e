"""26 epochs of Objects365 for the large DINOs.

A proposal of ours: the paper gives the number of epochs and nothing else. The rate falls to a tenth
after epochs 20 and 24; all else is as in ``schedule_dino_20k.py``.
"""

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-4, weight_decay=1e-4),
    constructor="CustomLayerDecayOptimizerConstructor",
    paramwise_cfg=dict(layer_decay_rate=0.94, offset_lr_scale=1e-3),
    clip_grad=dict(max_norm=0.1, norm_type=2),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type="MultiStepLR", by_epoch=True, begin=0, end=26, milestones=[20, 24], gamma=0.1),
]
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=26, val_interval=1)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")

auto_scale_lr = dict(enable=False, base_batch_size=16)
