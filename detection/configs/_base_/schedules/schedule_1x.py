"""12 epochs of AdamW at 16 images a step: 500 steps of warm-up, a tenth after epochs 8 and 11."""

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-4, weight_decay=0.05),
    constructor="CustomLayerDecayOptimizerConstructor",
    # 1.0 means one rate for all layers; what remains is what has no weight decay.
    paramwise_cfg=dict(layer_decay_rate=1.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type="MultiStepLR", by_epoch=True, begin=0, end=12, milestones=[8, 11], gamma=0.1),
]
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=12, val_interval=1)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")

# 8 GPUs, 2 images each; --auto-scale-lr divides by this.
auto_scale_lr = dict(enable=False, base_batch_size=16)
