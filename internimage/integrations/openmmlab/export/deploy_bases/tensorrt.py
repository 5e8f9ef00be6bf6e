"""TensorRT, float32, with 1 GiB for building as the original has."""

backend_config = dict(
    type="tensorrt", common_config=dict(fp16_mode=False, max_workspace_size=1 << 30)
)
