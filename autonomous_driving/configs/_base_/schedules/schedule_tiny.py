"""AdamW for models that start from random weights. A leaf says for how many steps, three times."""

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=2e-3, weight_decay=0.01),
    clip_grad=dict(max_norm=10.0),
)
# A leaf's list takes the place of this one, so that it repeats the warm-up.
param_scheduler = [
    dict(type="LinearLR", start_factor=0.05, by_epoch=False, begin=0, end=20),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=20, end=300, eta_min=1e-5),
]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=300, val_interval=300)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")

# The published scores of the tiny models are of this seed; --seed N is another run.
randomness = dict(seed=0)
