"""COCO-Stuff, 10,000 images, 171 classes; short side 512 pixels, crops of 512x512."""

_base_ = "coco_stuff164k.py"

data_root = "data/coco_stuff10k"
train_img_prefix = "images/train2014"
train_seg_map_prefix = "annotations/train2014"
val_img_prefix = "images/test2014"
val_seg_map_prefix = "annotations/test2014"
# A 0 in a mask is "unlabelled", which is ignored; class 0 is its 1.
reduce_zero_label = True

train_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        data_prefix=dict(img_path=train_img_prefix, seg_map_path=train_seg_map_prefix),
        reduce_zero_label=reduce_zero_label,
    )
)
val_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        data_prefix=dict(img_path=val_img_prefix, seg_map_path=val_seg_map_prefix),
        reduce_zero_label=reduce_zero_label,
    )
)
test_dataloader = val_dataloader
