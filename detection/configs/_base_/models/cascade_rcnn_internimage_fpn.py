"""Cascade R-CNN without masks: mmdet's, with InternImage in the place of its ResNet."""

_base_ = "mmdet::_base_/models/cascade-rcnn_r50_fpn.py"

model = dict(
    data_preprocessor=dict(pad_mask=False),
    backbone=dict(
        _delete_=True,
        type="InternImage",
        layer_scale=1.0,  # as in the released detectors
        with_cp=False,
        out_indices=(0, 1, 2, 3),
    ),
)
