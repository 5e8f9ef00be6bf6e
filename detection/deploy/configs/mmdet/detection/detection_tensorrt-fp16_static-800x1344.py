"""Boxes in TensorRT, the network in float16, for images of 800 x 1344 pixels."""

_base_ = [
    "../_base_/base_static.py",
    "../../../../../internimage/integrations/openmmlab/export/deploy_bases/tensorrt_fp16.py",
]

onnx_config = dict(input_shape=(1344, 800))  # width, height
backend_config = dict(
    model_inputs=[
        dict(
            input_shapes=dict(
                input=dict(
                    min_shape=[1, 3, 800, 1344],
                    opt_shape=[1, 3, 800, 1344],
                    max_shape=[1, 3, 800, 1344],
                )
            )
        )
    ]
)
