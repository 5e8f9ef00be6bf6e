"""Lanes, traffic elements and topology on OpenLane-V2, InternImage-S: OLS 0.325 (the author's).

74M parameters, 24 epochs, 8 GPUs, one frame of seven images each::

    bash autonomous_driving/dist_train.sh autonomous_driving/configs/openlane-v2/internimage-s.py 8
"""

_base_ = [
    "../_base_/models/bevformer_internimage_s.py",
    "../_base_/datasets/openlane_v2_subset_a.py",
    "../_base_/schedules/schedule_bevformer_24e.py",
    "../_base_/default_runtime.py",
]

bev_range = (-51.2, -25.6, -2.3, 51.2, 25.6, 1.7)  # metres, ego frame
model = dict(
    backbone=dict(
        out_indices=(0, 1, 2, 3),
        init_cfg=dict(type="Pretrained", checkpoint="internimage_s_1k_224"),
    ),
    neck=dict(in_channels=[80, 160, 320, 640]),
    view=dict(
        grid=dict(range=bev_range, shape=(100, 200)),  # 0.512 m a cell
        num_cameras=7,
        num_layers=3,
        num_pillar_points=4,  # two of the 8 sampling points each
        uses_history=False,  # frames come one by one, in training as in a test
    ),
    head=dict(type="OpenLaneHead", range=bev_range),
)

optim_wrapper = dict(
    optimizer=dict(weight_decay=0.01),
    paramwise_cfg=dict(custom_keys={"backbone": dict(lr_mult=0.1)}),
)
default_hooks = dict(checkpoint=dict(save_best="openlane/OLS", rule="greater"))
