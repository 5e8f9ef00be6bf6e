"""Labels of pixels in TensorRT, the network in float16, for images of 512 x 512 pixels."""

_base_ = [
    "./segmentation_static.py",
    "../../../../internimage/integrations/openmmlab/export/deploy_bases/tensorrt_fp16.py",
]

onnx_config = dict(input_shape=(512, 512))  # width, height
backend_config = dict(
    model_inputs=[
        dict(
            input_shapes=dict(
                input=dict(
                    min_shape=[1, 3, 512, 512],
                    opt_shape=[1, 3, 512, 512],
                    max_shape=[1, 3, 512, 512],
                )
            )
        )
    ]
)
