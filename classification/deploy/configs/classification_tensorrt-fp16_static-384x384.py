"""Classes in TensorRT, the network in float16, for one image of 384 x 384 pixels."""

_base_ = [
    "./classification_static.py",
    "../../../internimage/integrations/openmmlab/export/deploy_bases/tensorrt_fp16.py",
]

onnx_config = dict(input_shape=(384, 384))  # width, height
backend_config = dict(
    model_inputs=[
        dict(
            input_shapes=dict(
                input=dict(
                    min_shape=[1, 3, 384, 384],
                    opt_shape=[1, 3, 384, 384],
                    max_shape=[1, 3, 384, 384],
                )
            )
        )
    ]
)
