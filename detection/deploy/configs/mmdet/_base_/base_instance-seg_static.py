"""A detector of boxes and masks whose input has one size: that of the image that is traced."""

_base_ = ["./base_static.py"]

onnx_config = dict(output_names=["dets", "labels", "masks"])
codebase_config = dict(post_processing=dict(export_postprocess_mask=False))
