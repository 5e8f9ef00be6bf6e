"""24 epochs of AdamW at 8 frames a step: 500 steps of warm-up, cosine to a thousandth."""

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=2e-4, weight_decay=0.05),
    clip_grad=dict(max_norm=35, norm_type=2),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1 / 3, by_epoch=False, begin=0, end=500),
    # By epoch: during the first, in which the warm-up ends, its factor is 1.
    dict(type="CosineAnnealingLR", by_epoch=True, begin=0, end=24, T_max=24, eta_min_ratio=1e-3),
]
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=24, val_interval=1)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")

# 8 GPUs, one frame each; --auto-scale-lr divides by this.
auto_scale_lr = dict(enable=False, base_batch_size=8)
