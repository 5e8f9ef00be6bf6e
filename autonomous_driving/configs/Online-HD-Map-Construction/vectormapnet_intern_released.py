"""As vectormapnet_intern.py, with the fault that the released weights were trained with.

For evaluating those. Padding the images from 455 to 480 pixels stretches the cameras' matrices.
Polylines are the likeliest ones; for the published score they were drawn, ``model.head.top_p=0.9``,
so that it varies from run to run.
"""

_base_ = "vectormapnet_intern.py"

test_pipeline = [
    dict(type="LoadDrivingImages"),
    dict(type="ResizeDrivingImages", size=(256, 455)),
    # Behind resizing: it is 455, not 2048, that is padded.
    dict(type="ScaleMatricesByPadding", size_divisor=32),
    dict(type="LoadVectorMap"),
    dict(type="PackDrivingInputs"),
]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
