"""A segmentor for images of any number and size: what the leaves with a backend inherit from."""

_base_ = ["./segmentation_static.py"]

onnx_config = dict(
    dynamic_axes=dict(
        input={0: "batch", 2: "height", 3: "width"},
        output={0: "batch", 2: "height", 3: "width"},
    ),
)
