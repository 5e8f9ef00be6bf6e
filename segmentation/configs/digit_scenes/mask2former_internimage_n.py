"""Mask2Former, InternImage-N, on scenes of digits: 100 steps, a proof that it learns and no more.

From random weights its queries need hours; in half a minute its loss falls by a third::

    python tools/make_digit_scenes.py --out data/digit_scenes
    python segmentation/train.py segmentation/configs/digit_scenes/mask2former_internimage_n.py
"""

_base_ = [
    "../_base_/models/mask2former_internimage.py",
    "../_base_/datasets/digit_scenes.py",
    "../_base_/default_runtime.py",
]

num_steps = 100
width = 64
attention = dict(embed_dims=width, num_heads=4)
ffn = dict(embed_dims=width, feedforward_channels=128)
model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(arch="n", drop_path_rate=0.0),
    decode_head=dict(
        in_channels=[32, 64, 128, 256],
        feat_channels=width,
        out_channels=width,
        num_classes=11,
        num_queries=20,
        positional_encoding=dict(num_feats=width // 2),
        pixel_decoder=dict(
            positional_encoding=dict(num_feats=width // 2),
            encoder=dict(num_layers=2, layer_cfg=dict(self_attn_cfg=attention, ffn_cfg=ffn)),
        ),
        transformer_decoder=dict(
            num_layers=3,
            layer_cfg=dict(self_attn_cfg=attention, cross_attn_cfg=attention, ffn_cfg=ffn),
        ),
        loss_cls=dict(class_weight=[1.0] * 11 + [0.1]),
        train_cfg=dict(num_points=1024),
    ),
)
train_dataloader = dict(batch_size=4)

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-3, weight_decay=0.05),
    clip_grad=dict(max_norm=0.1),
)
param_scheduler = [dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=5)]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=num_steps, val_interval=num_steps)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=num_steps))

# Parts are no settings: they do not go into the config.
del attention, ffn
