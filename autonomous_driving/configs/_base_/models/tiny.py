"""What the tiny models share: an InternImage of 16 channels and five blocks.

A leaf gives the number of stages and the channels of the pyramid, a view and a head.
"""

model = dict(
    type="BEVModel",
    data_preprocessor=dict(type="BEVDataPreprocessor"),
    backbone=dict(
        type="InternImage",
        channels=16,
        depths=(1, 1, 2, 1),
        groups=(1, 2, 4, 8),  # 16 channels each, as in InternImage-S
        drop_path_rate=0.0,  # nothing that makes learning by heart harder
    ),
    neck=dict(type="FPN"),
)
