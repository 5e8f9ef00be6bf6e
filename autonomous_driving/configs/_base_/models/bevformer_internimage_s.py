"""BEVFormer on InternImage-S: four maps of 256 channels, a view of 256 channels.

A leaf gives ``neck`` the maps it starts from, ``view`` its grid, cameras and depth, and a head.
"""

model = dict(
    type="BEVModel",
    # ImageNet's mean and deviation, red first, zeros up to multiples of 32: its defaults.
    data_preprocessor=dict(type="BEVDataPreprocessor"),
    backbone=dict(type="InternImage", arch="s", drop_path_rate=0.3),
    neck=dict(type="FPN", out_channels=256, start_level=0, num_outs=4),
    view=dict(
        type="BEVFormerView",
        embed_dims=256,
        num_levels=4,
        num_points=8,  # spread over the points of a pillar, so a multiple of their number
        num_heads=8,
        feedforward_channels=512,
        dropout=0.1,
    ),
)
