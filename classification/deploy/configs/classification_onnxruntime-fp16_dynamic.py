"""Classes in ONNX Runtime, the network in float16, for images of any number and size."""

_base_ = [
    "./classification_dynamic.py",
    "../../../internimage/integrations/openmmlab/export/deploy_bases/onnxruntime_fp16.py",
]
