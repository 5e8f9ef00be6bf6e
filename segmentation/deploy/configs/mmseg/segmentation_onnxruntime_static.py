"""Labels of pixels in ONNX Runtime, for images of one size."""

_base_ = [
    "./segmentation_static.py",
    "../../../../internimage/integrations/openmmlab/export/deploy_bases/onnxruntime.py",
]
