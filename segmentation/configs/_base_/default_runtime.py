"""What every segmentor shares: its registrations, hooks and logs, which count steps.

As mmseg's own; it cannot be inherited, since mmengine looks for it in a package by another name
than that of the maintained one (``mmsegmentation``, ``onedl-mmsegmentation``).
"""

custom_imports = dict(
    imports=[
        "internimage.integrations.openmmlab",
        "internimage.integrations.openmmlab.segmentation",
    ]
)
default_scope = "mmseg"

env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0),
    dist_cfg=dict(backend="nccl"),
)
default_hooks = dict(
    timer=dict(type="IterTimerHook"),
    logger=dict(type="LoggerHook", interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type="ParamSchedulerHook"),
    checkpoint=dict(
        type="CheckpointHook",
        by_epoch=False,
        interval=1000,
        max_keep_ckpts=1,
        save_last=True,
        save_best="mIoU",
    ),
    sampler_seed=dict(type="DistSamplerSeedHook"),
)
log_processor = dict(by_epoch=False)
log_level = "INFO"
vis_backends = [dict(type="LocalVisBackend")]
visualizer = dict(type="SegLocalVisualizer", vis_backends=vis_backends, name="visualizer")
load_from = None
resume = False

# Test-time augmentation: the class probabilities of all views are averaged. The views,
# ``tta_pipeline``, stand with each data set. It acts in ``segmentation/test.py CONFIG CHECKPOINT
# --tta``, and without the flag in a config that has ``tta = True``.
tta_model = dict(type="InternImageSegTTA")
