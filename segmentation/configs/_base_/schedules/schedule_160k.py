"""160,000 steps of AdamW at 16 images a step, the rate falling to zero along a line.

At step i, counted from 0, the rate is ``lr`` times ``1 - i / 160000``, and in the first 1500 steps
this times a line from 1e-6 to 1. The two schedulers multiply; their ``end`` is one more than the
step at which the factor is reached, since mmengine spreads a line over ``end - begin - 1`` steps.
"""

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=6e-5, betas=(0.9, 0.999), weight_decay=0.05),
    constructor="CustomLayerDecayOptimizerConstructor",
    # 1.0 means one rate for all layers; what remains is what has no weight decay.
    paramwise_cfg=dict(layer_decay_rate=1.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-6, by_epoch=False, begin=0, end=1501),
    dict(type="PolyLR", power=1.0, eta_min=0.0, by_epoch=False, begin=0, end=160001),
]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=160000, val_interval=16000)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")

# 8 GPUs, 2 images each; --auto-scale-lr divides by this.
auto_scale_lr = dict(enable=False, base_batch_size=16)
