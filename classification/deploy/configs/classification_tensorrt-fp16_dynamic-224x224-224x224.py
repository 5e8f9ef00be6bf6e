"""Classes in TensorRT, the network in float16, for 1 to 64 images of 224 x 224 pixels."""

_base_ = [
    "./classification_dynamic.py",
    "../../../internimage/integrations/openmmlab/export/deploy_bases/tensorrt_fp16.py",
]

backend_config = dict(
    model_inputs=[
        dict(
            input_shapes=dict(
                input=dict(
                    min_shape=[1, 3, 224, 224],
                    opt_shape=[8, 3, 224, 224],
                    max_shape=[64, 3, 224, 224],
                )
            )
        )
    ]
)
