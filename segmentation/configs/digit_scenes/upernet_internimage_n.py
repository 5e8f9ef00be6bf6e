"""UperNet, InternImage-N, on scenes of digits, from random weights: mIoU 79.

Ten to fifteen minutes on one thread of a CPU. A proof that all parts work together and no
benchmark: the settings were chosen by the score and the time::

    python tools/make_digit_scenes.py --out data/digit_scenes
    config=segmentation/configs/digit_scenes/upernet_internimage_n.py
    python segmentation/train.py $config --work-dir runs/digit_scenes
"""

_base_ = [
    "../_base_/models/upernet_internimage.py",
    "../_base_/datasets/digit_scenes.py",
    "../_base_/default_runtime.py",
]

num_steps = 3400
norm = dict(type="BN")  # its values over several ranks would be of no use on one
# Five pixels of six are paper, and that all is paper is learned first and for long. Weighed so, the
# auxiliary head has to tell digits apart; the other one, unweighted, paints no more than there is.
balanced = dict(loss_weight=1.0, class_weight=[0.1] + [1.0] * 10)
model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(arch="n", drop_path_rate=0.0),
    decode_head=dict(
        in_channels=[32, 64, 128, 256],
        channels=32,
        num_classes=11,
        norm_cfg=norm,
    ),
    auxiliary_head=dict(
        in_channels=128, channels=64, num_classes=11, norm_cfg=norm, loss_decode=balanced
    ),
)

optim_wrapper = dict(
    type="OptimWrapper",
    # The gradients of the beginning, of paper, are large: squares averaged over 1000 steps would
    # keep the steps small for as long.
    optimizer=dict(type="AdamW", lr=5e-3, betas=(0.9, 0.99), weight_decay=0.05, fused=True),
    clip_grad=dict(max_norm=10.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.05, by_epoch=False, begin=0, end=20),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=1700, end=num_steps, eta_min=1e-5),
]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=num_steps, val_interval=850)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
default_hooks = dict(logger=dict(interval=25), checkpoint=dict(interval=850))
