"""Cityscapes, and 20,000 more images with masks refined from its coarse ones.

The masks of the latter are named as those of the former, ``*_gtFine_labelTrainIds.png``.
"""

_base_ = "cityscapes.py"

train_img_prefix = ["leftImg8bit/train", "leftImg8bit/train_extra"]
train_seg_map_prefix = ["gtFine/train", "refinement_final/train_extra"]

train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type="ConcatDataset",
        datasets=[
            dict(
                _base_.train_dataloader.dataset,
                data_prefix=dict(img_path=images, seg_map_path=masks),
            )
            for images, masks in zip(train_img_prefix, train_seg_map_prefix, strict=True)
        ],
    )
)
