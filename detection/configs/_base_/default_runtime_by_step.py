"""As ``default_runtime.py``, for schedules that count steps: a checkpoint every 200."""

_base_ = "default_runtime.py"

default_hooks = dict(
    checkpoint=dict(by_epoch=False, interval=200),
    logger=dict(log_metric_by_epoch=False),
)
log_processor = dict(by_epoch=False)
