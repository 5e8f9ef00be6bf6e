"""What every detector shares: its registrations, hooks, logs. Based on mmdet's own."""

_base_ = "mmdet::_base_/default_runtime.py"

custom_imports = dict(
    imports=[
        "internimage.integrations.openmmlab",
        "internimage.integrations.openmmlab.detection",
    ]
)
default_scope = "mmdet"

default_hooks = dict(
    checkpoint=dict(interval=1, max_keep_ckpts=3, save_last=True, save_best="coco/bbox_mAP"),
)
