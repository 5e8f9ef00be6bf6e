"""DINO on InternImage-G.

The released weights keep each feed-forward network in four parts, which is the same function: they
are put together when a checkpoint is loaded.
"""

_base_ = "dino_internimage_h.py"

model = dict(
    backbone=dict(arch="g"),
    neck=dict(in_channels=[1024, 2048, 4096]),
)
