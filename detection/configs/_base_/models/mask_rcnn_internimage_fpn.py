"""Mask R-CNN with a feature pyramid: mmdet's, with InternImage in the place of its ResNet.

A leaf gives ``backbone`` its ``arch``, ``drop_path_rate`` and ``init_cfg``, and the widths of the
four stages to ``neck``.
"""

_base_ = "mmdet::_base_/models/mask-rcnn_r50_fpn.py"

model = dict(
    backbone=dict(
        _delete_=True,
        type="InternImage",
        # The released detectors have layer scales even where the classifier (T) has none; they
        # start at 1 and take the classifier's values where there are some.
        layer_scale=1.0,
        with_cp=False,
        out_indices=(0, 1, 2, 3),
    ),
)
