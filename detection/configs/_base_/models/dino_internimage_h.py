"""DINO on InternImage-H: more noisy queries, and recomputed activations for the memory's sake."""

_base_ = "dino_internimage.py"

model = dict(
    with_cp=True,
    backbone=dict(arch="h", drop_path_rate=0.5, with_cp=True),
    neck=dict(in_channels=[640, 1280, 2560]),
    dn_cfg=dict(group_cfg=dict(num_dn_queries=1000)),
)
