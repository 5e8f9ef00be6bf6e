"""Classes in TensorRT, for one image of 224 x 224 pixels."""

_base_ = [
    "./classification_static.py",
    "../../../internimage/integrations/openmmlab/export/deploy_bases/tensorrt.py",
]

onnx_config = dict(input_shape=(224, 224))  # width, height
backend_config = dict(
    model_inputs=[
        dict(
            input_shapes=dict(
                input=dict(
                    min_shape=[1, 3, 224, 224],
                    opt_shape=[1, 3, 224, 224],
                    max_shape=[1, 3, 224, 224],
                )
            )
        )
    ]
)
