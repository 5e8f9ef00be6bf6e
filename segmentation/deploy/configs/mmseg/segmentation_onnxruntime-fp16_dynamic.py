"""Labels of pixels in ONNX Runtime, the network in float16, for images of any size."""

_base_ = [
    "./segmentation_dynamic.py",
    "../../../../internimage/integrations/openmmlab/export/deploy_bases/onnxruntime_fp16.py",
]
