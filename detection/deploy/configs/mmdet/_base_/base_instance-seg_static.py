"""A detector of boxes and masks whose input has one size: that of the image that is traced."""

_base_ = ["./base_static.py"]

onnx_config = dict(output_names=["dets", "labels", "masks"])
# Masks stay 28 x 28 within their boxes: who reads them pastes them into the image.
codebase_config = dict(post_processing=dict(export_postprocess_mask=False))
