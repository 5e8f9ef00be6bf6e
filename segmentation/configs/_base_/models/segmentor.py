"""What the segmentors have in common: the norm of images, and the backbone."""

model = dict(
    type="InternImageSegmentor",
    data_preprocessor=dict(
        type="SegDataPreProcessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
    ),
    backbone=dict(
        type="InternImage",
        # The released segmentors have layer scales even where the classifier (T) has none; they
        # start at 1 and take the classifier's values where there are some. H and G have none.
        layer_scale=1.0,
        with_cp=False,
        out_indices=(0, 1, 2, 3),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode="whole"),
)
