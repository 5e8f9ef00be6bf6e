"""DETR's augmentation, in its two forms: resize; or resize, crop and resize again.

A short side of 480 to 800 pixels, the long one at most 1333. ``detr_crop`` (R-CNNs) also takes
crops without an object; ``detr_crop_of_objects`` (DINO) does not, and keeps the shape of very long
images before the crop.
"""

scales = [(side, 1333) for side in range(480, 801, 32)]
resize = dict(type="RandomChoiceResize", scales=scales, keep_ratio=True)
crop = dict(type="RandomCrop", crop_type="absolute_range", crop_size=(384, 600))
flip = dict(type="RandomFlip", prob=0.5)

detr_crop = [
    flip,
    dict(
        type="RandomChoice",
        transforms=[
            [resize],
            [
                dict(resize, scales=[(400, 1333), (500, 1333), (600, 1333)]),
                dict(crop, allow_negative_crop=True),
                resize,
            ],
        ],
    ),
]
detr_crop_of_objects = [
    flip,
    dict(
        type="RandomChoice",
        transforms=[
            [resize],
            [
                dict(resize, scales=[(400, 4200), (500, 4200), (600, 4200)]),
                dict(crop, allow_negative_crop=False),
                resize,
            ],
        ],
    ),
]

# Parts are no settings: they do not go into the config.
del scales, resize, crop, flip
