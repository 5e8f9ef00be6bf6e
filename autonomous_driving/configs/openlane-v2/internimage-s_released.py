"""As internimage-s.py, with the faults that the released weights were trained with.

For evaluating those. The attention over time projects its values twice, the queries are told where
in the world the vehicle is, and heights in an image are shares of 1550 pixels where the features
cover 1568.
"""

_base_ = "internimage-s.py"

model = dict(view=dict(double_value_projection=True, absolute_can_bus=True))

test_pipeline = [
    dict(type="LoadDrivingImages"),
    dict(type="ResizeDrivingImages", size=(1550, 2048)),
    # Behind resizing: the front image is 1550 pixels high only then.
    dict(type="ScaleMatricesByPadding", size_divisor=32),
    dict(type="LoadOpenLane"),
    dict(type="PackDrivingInputs", meta_keys=("identifier",)),
]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
