"""SegFormer's head on four stages of InternImage.

A leaf gives ``backbone`` its ``arch``, ``drop_path_rate`` and ``init_cfg``, the widths of the four
stages to ``decode_head``, and ``data_preprocessor`` the size that training images are padded to.
"""

_base_ = "segmentor.py"

model = dict(
    decode_head=dict(
        type="SegformerHead",
        in_index=[0, 1, 2, 3],
        channels=256,
        dropout_ratio=0.1,
        num_classes=150,
        norm_cfg=dict(type="SyncBN", requires_grad=True),
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
    )
)
