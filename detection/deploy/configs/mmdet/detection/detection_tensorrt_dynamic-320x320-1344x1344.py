"""Boxes in TensorRT, 320 x 320 to 1344 x 1344 pixels."""

_base_ = [
    "../_base_/base_dynamic.py",
    "../../../../../internimage/integrations/openmmlab/export/deploy_bases/tensorrt.py",
]

backend_config = dict(
    model_inputs=[
        dict(
            input_shapes=dict(
                input=dict(
                    min_shape=[1, 3, 320, 320],
                    # COCO's 800 x 1333, padded to multiples of 32; the largest is that upright too.
                    opt_shape=[1, 3, 800, 1344],
                    max_shape=[1, 3, 1344, 1344],
                )
            )
        )
    ]
)
