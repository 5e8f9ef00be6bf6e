"""Occupancy on Occ3D-nuScenes, BEVFormer on InternImage-S, 24 epochs: mIoU 25.11 (the author's).

65M parameters, 8 GPUs, one frame each with three of its history, less than 14 GB a GPU (the author
says)::

    bash autonomous_driving/dist_train.sh \
        autonomous_driving/configs/occupancy_prediction/bevformer_intern-s_occ.py 8
"""

_base_ = [
    "../_base_/models/bevformer_internimage_s.py",
    "../_base_/datasets/occ3d_nuscenes.py",
    "../_base_/schedules/schedule_bevformer_24e.py",
    "../_base_/default_runtime.py",
]

model = dict(
    data_preprocessor=dict(grid_mask=dict(prob=0.7, ratio=0.5)),
    backbone=dict(
        out_indices=(1, 2, 3),
        # a detector's: its backbone is taken
        init_cfg=dict(type="Pretrained", checkpoint="mask_rcnn_internimage_s_fpn_3x_coco"),
    ),
    neck=dict(
        in_channels=[160, 320, 640],
        # The fourth map, of stride 64, is made of the last of the three.
        add_extra_convs="on_output",
        relu_before_extra_convs=True,
    ),
    view=dict(
        # Cells of 0.4 m, one for each column of 16 voxels.
        grid=dict(range=(-40.0, -40.0, -1.0, 40.0, 40.0, 5.4), shape=(200, 200)),
        num_cameras=6,
        num_layers=4,
        num_pillar_points=8,
    ),
    head=dict(type="OccupancyHead", in_channels=256, num_heights=16),  # 16 channels a height
)

# One rate for all layers; vectors, norms and sampling offsets have no weight decay.
optim_wrapper = dict(
    constructor="CustomLayerDecayOptimizerConstructor",
    paramwise_cfg=dict(layer_decay_rate=1.0),
)
default_hooks = dict(checkpoint=dict(save_best="occ3d/mIoU", rule="greater"))
