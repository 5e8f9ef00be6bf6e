"""DINO, InternImage-N, on scenes of digits: 50 steps, which prove that it learns and no more.

From random weights a transformer detects after hours; in a minute its loss falls by a third::

    python tools/make_digit_scenes.py --out data/digit_scenes
    python detection/train.py detection/configs/digit_scenes/dino_internimage_n.py
"""

_base_ = [
    "../_base_/models/dino_internimage.py",
    "../_base_/datasets/digit_scenes.py",
    "../_base_/default_runtime_by_step.py",
]

num_steps = 50
width = 64
attention = dict(embed_dims=width, num_heads=4)
deformable = dict(embed_dims=width, num_heads=4)
ffn = dict(embed_dims=width, feedforward_channels=128)
model = dict(
    num_queries=30,
    backbone=dict(arch="n", drop_path_rate=0.0),
    neck=dict(in_channels=[64, 128, 256], out_channels=width),
    encoder=dict(num_layers=2, layer_cfg=dict(self_attn_cfg=deformable, ffn_cfg=ffn)),
    decoder=dict(
        num_layers=2,
        layer_cfg=dict(self_attn_cfg=attention, cross_attn_cfg=deformable, ffn_cfg=ffn),
    ),
    positional_encoding=dict(num_feats=width // 2),
    bbox_head=dict(num_classes=10, embed_dims=width),
    dn_cfg=dict(group_cfg=dict(num_dn_queries=20)),
    test_cfg=dict(max_per_img=20),
)

# No masks: as for Mask R-CNN otherwise.
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="Resize", scale=(128, 128), keep_ratio=True),
    dict(type="PackDetInputs"),
]
train_dataloader = dict(batch_size=4, dataset=dict(pipeline=train_pipeline))
val_evaluator = dict(metric="bbox")
test_evaluator = val_evaluator

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-3, weight_decay=1e-4),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=5)]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=num_steps, val_interval=num_steps)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=num_steps))
