"""Mask R-CNN, InternImage-T, 12 epochs on COCO, as the original ran it on the kernel of DCNv4.

That kernel computes the same function, so weights and results are those of
``mask_rcnn_internimage_t_fpn_1x_coco.py``: box AP 47.2, mask AP 42.5; 49M parameters, 270 GFLOPs.
There is one kernel here; the option is accepted and warns that it changes nothing::

    config=detection/configs/coco/mask_rcnn_internimage_t_fpn_1x_coco_with_dcnv4.py
    bash detection/dist_train.sh $config 8
"""

_base_ = "mask_rcnn_internimage_t_fpn_1x_coco.py"

model = dict(backbone=dict(use_dcn_v4_op=True))
