"""Labels of pixels in TensorRT, 512 x 512 to 2048 x 2048 pixels."""

_base_ = [
    "./segmentation_dynamic.py",
    "../../../../internimage/integrations/openmmlab/export/deploy_bases/tensorrt.py",
]

backend_config = dict(
    model_inputs=[
        dict(
            input_shapes=dict(
                input=dict(
                    min_shape=[1, 3, 512, 512],
                    opt_shape=[1, 3, 1024, 1024],
                    max_shape=[1, 3, 2048, 2048],
                )
            )
        )
    ]
)
