"""STARE, vessels of the retina; 700x605 pixels, crops of 128x128."""

_base_ = "drive.py"

data_root = "data/STARE"
img_suffix = ".png"
seg_map_suffix = ".ah.png"

crop_size = (128, 128)
train_pipeline = [
    *_base_.train_pipeline[:3],
    dict(type="RandomResize", scale=(605, 700), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type="RandomCrop", crop_size=crop_size, cat_max_ratio=0.75),
    *_base_.train_pipeline[5:],
]
test_pipeline = [
    _base_.test_pipeline[0],
    dict(type="Resize", scale=(605, 700), keep_ratio=True),
    *_base_.test_pipeline[2:],
]
tta_pipeline = [
    _base_.tta_pipeline[0],
    dict(
        type="TestTimeAug",
        transforms=[
            [
                dict(type="Resize", scale=(int(605 * ratio), int(700 * ratio)), keep_ratio=True)
                for ratio in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
            ],
            *_base_.tta_pipeline[1].transforms[1:],
        ],
    ),
]

files = dict(type="STAREDataset", data_root=data_root, seg_map_suffix=seg_map_suffix)
train_dataloader = dict(dataset=dict(files, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(files, pipeline=test_pipeline))
test_dataloader = val_dataloader

# A part is no setting: it does not go into the config.
del files
