"""Pascal VOC 2012, and the 9118 masks of SBD, which ``voc_aug.py`` of mmseg's converters writes."""

_base_ = "pascal_voc12.py"

train_ann_file = ["ImageSets/Segmentation/train.txt", "ImageSets/Segmentation/aug.txt"]
train_img_prefix = ["JPEGImages", "JPEGImages"]
train_seg_map_prefix = ["SegmentationClass", "SegmentationClassAug"]

train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type="ConcatDataset",
        datasets=[
            dict(
                _base_.train_dataloader.dataset,
                ann_file=names,
                data_prefix=dict(img_path=images, seg_map_path=masks),
            )
            for names, images, masks in zip(
                train_ann_file, train_img_prefix, train_seg_map_prefix, strict=True
            )
        ],
    )
)
