"""Faster R-CNN, Mask R-CNN's twin for data with boxes alone: mmdet's, with InternImage.

No config of the original uses it. Weights of a released Mask R-CNN fit all of it.
"""

_base_ = "mmdet::_base_/models/faster-rcnn_r50_fpn.py"

model = dict(
    backbone=dict(
        _delete_=True,
        type="InternImage",
        layer_scale=1.0,  # as in the released detectors
        with_cp=False,
        out_indices=(0, 1, 2, 3),
    ),
)
