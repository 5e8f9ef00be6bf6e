"""As default_runtime.py, for schedules that count steps and not epochs."""

_base_ = "default_runtime.py"

default_hooks = dict(
    checkpoint=dict(by_epoch=False, interval=200),
    logger=dict(interval=20, log_metric_by_epoch=False),
)
# As for both hooks: each of the three counts by itself, and epochs by default.
log_processor = dict(by_epoch=False)
