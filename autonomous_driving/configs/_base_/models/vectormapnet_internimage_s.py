"""VectorMapNet on InternImage-S: four maps of 128 channels, four planes, elements, polylines."""

model = dict(
    type="BEVModel",
    # ImageNet's mean and deviation, red first, zeros up to multiples of 32: its defaults.
    data_preprocessor=dict(type="BEVDataPreprocessor"),
    backbone=dict(
        type="InternImage",
        arch="s",
        drop_path_rate=0.3,
        out_indices=(0, 1, 2, 3),
        init_cfg=dict(type="Pretrained", checkpoint="internimage_s_1k_224"),
    ),
    neck=dict(
        type="FPN",
        in_channels=[80, 160, 320, 640],
        out_channels=128,
        num_outs=4,
        # The original's; the other two have none in their pyramid.
        norm_cfg=dict(type="BN"),
    ),
    view=dict(
        type="IPMView",
        # 60 x 30 m, as the canvas of the tokens; z only says where planes may be.
        grid=dict(range=(-30.0, -15.0, -1.1, 30.0, 15.0, 1.1), shape=(100, 200)),
        heights=(-1.1, 0.0, 0.5, 1.1),
        in_channels=128,
        trunk_channels=64,  # ResNet-18's first stage
        out_channels=128,
    ),
    head=dict(type="VectorMapHead", in_channels=128),
)
