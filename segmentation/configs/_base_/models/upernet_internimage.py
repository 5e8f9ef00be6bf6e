"""UperNet with an auxiliary FCN on four stages of InternImage.

A leaf gives ``backbone`` its ``arch``, ``drop_path_rate`` and ``init_cfg``, the widths of the four
stages to ``decode_head`` and that of the third to ``auxiliary_head``, both heads their classes, and
``data_preprocessor`` the size that training images are padded to.
"""

_base_ = "segmentor.py"

model = dict(
    decode_head=dict(
        type="UPerHead",
        in_index=[0, 1, 2, 3],
        pool_scales=(1, 2, 3, 6),
        channels=512,
        dropout_ratio=0.1,
        num_classes=150,
        norm_cfg=dict(type="SyncBN", requires_grad=True),
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
    ),
    auxiliary_head=dict(
        type="FCNHead",
        in_index=2,
        channels=256,
        num_convs=1,
        concat_input=False,
        dropout_ratio=0.1,
        num_classes=150,
        norm_cfg=dict(type="SyncBN", requires_grad=True),
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=0.4),
    ),
)
