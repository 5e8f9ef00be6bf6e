"""Labels of pixels in ONNX Runtime, for images of any size."""

_base_ = [
    "./segmentation_dynamic.py",
    "../../../../internimage/integrations/openmmlab/export/deploy_bases/onnxruntime.py",
]
