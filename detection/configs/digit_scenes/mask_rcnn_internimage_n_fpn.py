"""Mask R-CNN, InternImage-N, on scenes of digits, from random weights: box AP 79, mask AP 77.

Up to eleven minutes on one thread of a busy CPU. A proof that all parts work together and no
benchmark: the settings were chosen by the score and the time::

    python tools/make_digit_scenes.py --out data/digit_scenes
    config=detection/configs/digit_scenes/mask_rcnn_internimage_n_fpn.py
    python detection/train.py $config --work-dir runs/digit_scenes
"""

_base_ = [
    "../_base_/models/mask_rcnn_internimage_fpn.py",
    "../_base_/datasets/digit_scenes.py",
    "../_base_/default_runtime_by_step.py",
]

num_steps = 800
width = 48
norm = dict(type="BN")  # without, heads that start from random weights learn ten times slower
model = dict(
    backbone=dict(arch="n", drop_path_rate=0.0, layer_scale=None),
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=width, num_outs=4, norm_cfg=norm),
    rpn_head=dict(
        in_channels=width,
        feat_channels=width,
        # A digit is 30 to 60 pixels high and narrower than high.
        anchor_generator=dict(scales=[5, 7], ratios=[1.0, 1.5, 2.5], strides=[4, 8, 16, 32]),
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(
            roi_layer=dict(sampling_ratio=1), out_channels=width, finest_scale=20
        ),
        bbox_head=dict(
            type="ConvFCBBoxHead",
            num_shared_convs=1,
            num_shared_fcs=1,
            in_channels=width,
            conv_out_channels=width,
            fc_out_channels=256,
            num_classes=10,
            reg_class_agnostic=True,
            norm_cfg=norm,
        ),
        mask_roi_extractor=dict(roi_layer=dict(sampling_ratio=1), out_channels=width),
        mask_head=dict(
            num_convs=2,
            in_channels=width,
            conv_out_channels=32,
            num_classes=10,
            class_agnostic=True,
            norm_cfg=norm,
        ),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=128)),
        rpn_proposal=dict(nms_pre=200, max_per_img=100),
        rcnn=dict(sampler=dict(num=48, pos_fraction=0.34)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=300, max_per_img=50), rcnn=dict(max_per_img=20)),
)

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=3e-3, weight_decay=0.05, fused=True),
    clip_grad=dict(max_norm=10.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.05, by_epoch=False, begin=0, end=50),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=50, end=num_steps, eta_min=1e-5),
]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=num_steps, val_interval=200)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
default_hooks = dict(logger=dict(interval=25))
