"""Labels of pixels in ONNX Runtime, the network in float16, for images of one size."""

_base_ = [
    "./segmentation_static.py",
    "../../../../internimage/integrations/openmmlab/export/deploy_bases/onnxruntime_fp16.py",
]
