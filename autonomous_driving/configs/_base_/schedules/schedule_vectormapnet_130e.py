"""130 epochs of AdamW: 400 steps of warm-up, a tenth after epochs 100 and 120.

Everything before the head has a tenth of the rate, not InternImage alone: in the original it was
one module, whose name the rule was for.
"""

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-3, weight_decay=0.01),
    clip_grad=dict(max_norm=3.5, norm_type=2),
    paramwise_cfg=dict(
        custom_keys={
            # mmengine looks for a key anywhere in a name; the dots keep it to whole parts.
            "backbone.": dict(lr_mult=0.1),
            "neck.": dict(lr_mult=0.1),
            "view.": dict(lr_mult=0.1),
        }
    ),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=400),
    dict(type="MultiStepLR", by_epoch=True, begin=0, end=130, milestones=[100, 120], gamma=0.1),
]
# Each 10th epoch: 13 evaluations, which generate their lines vertex by vertex.
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=130, val_interval=10)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
# No auto_scale_lr: on how many GPUs the rate was found the author does not say, so that
# --auto-scale-lr is refused.
