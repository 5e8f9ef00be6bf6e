"""Test-time augmentation of boxes: three scales, each as it is and flipped, merged by soft NMS.

A proposal of ours: the author's results with augmentation come without its settings. It acts in
``detection/test.py CONFIG CHECKPOINT --tta`` only.
"""

tta_model = dict(
    type="DetTTAModel",
    tta_cfg=dict(
        # The views agree on one object within a few pixels, so what overlaps is one object seen
        # several times, or, less often, a second one: lowered, not dropped.
        nms=dict(type="soft_nms", iou_threshold=0.6, min_score=0.001),
        max_per_img=300,
    ),
)
tta_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(
        type="TestTimeAug",
        transforms=[
            [
                dict(type="Resize", scale=(2000, side), keep_ratio=True)
                for side in (800, 1000, 1200)
            ],
            [dict(type="RandomFlip", prob=1.0), dict(type="RandomFlip", prob=0.0)],
            [dict(type="LoadAnnotations", with_bbox=True)],
            [
                dict(
                    type="PackDetInputs",
                    meta_keys=(
                        "img_id",
                        "img_path",
                        "ori_shape",
                        "img_shape",
                        "scale_factor",
                        "flip",
                        "flip_direction",
                    ),
                )
            ],
        ],
    ),
]
