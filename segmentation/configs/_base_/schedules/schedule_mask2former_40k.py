"""40,000 steps; all else as in ``schedule_mask2former_80k.py``."""

_base_ = "schedule_mask2former_80k.py"

param_scheduler = [
    dict(type="LinearLR", start_factor=1e-6, by_epoch=False, begin=0, end=1501),
    dict(type="PolyLR", power=1.0, eta_min=0.0, by_epoch=False, begin=0, end=40001),
]
train_cfg = dict(max_iters=40000, val_interval=2000)
