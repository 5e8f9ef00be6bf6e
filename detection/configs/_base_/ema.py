"""A running average of the weights, which is what is evaluated and saved as the model."""

custom_hooks = [
    dict(
        type="EMAHook",
        ema_type="ExpMomentumEMA",  # quick at first: the average does not remember random weights
        momentum=1e-4,
        update_buffers=True,
        priority=49,
    )
]
