"""What every model of driving shares: its registrations, hooks, logs. Based on mmdet's own."""

_base_ = "mmdet::_base_/default_runtime.py"

custom_imports = dict(
    imports=[
        "internimage.integrations.openmmlab",
        "internimage.integrations.openmmlab.driving",
    ]
)
default_scope = "mmdet"

# One process scores while the others wait for it, on GPUs for 10 minutes by default, and OLS of all
# 4,806 frames takes about as long on one core. Seconds.
env_cfg = dict(dist_cfg=dict(timeout=3600))

# mmdet's draw boxes. Frames of several cameras have a hook of their own, DrivingPicturesHook.
default_hooks = dict(
    _delete_=True,
    timer=dict(type="IterTimerHook"),
    logger=dict(type="LoggerHook", interval=50),
    param_scheduler=dict(type="ParamSchedulerHook"),
    checkpoint=dict(type="CheckpointHook", interval=1, max_keep_ckpts=3, save_last=True),
    sampler_seed=dict(type="DistSamplerSeedHook"),
)
