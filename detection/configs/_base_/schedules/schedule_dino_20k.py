"""20,000 steps for the large DINOs: a constant rate behind 500 steps of warm-up.

Goes with ``default_runtime_by_step.py``. One image a GPU; on how many GPUs the author does not say:
``base_batch_size`` is 16, the batch that DINO's rate of 1e-4 was made for.
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
]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=20000, val_interval=200)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")

auto_scale_lr = dict(enable=False, base_batch_size=16)
