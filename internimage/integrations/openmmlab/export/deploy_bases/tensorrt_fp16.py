"""TensorRT, the network in float16.

The precision is in the ONNX file: TensorRT 11 has no flag for it, and 10 builds such a file alike.
"""

backend_config = dict(
    type="tensorrt", common_config=dict(fp16_mode=True, max_workspace_size=1 << 30)
)
