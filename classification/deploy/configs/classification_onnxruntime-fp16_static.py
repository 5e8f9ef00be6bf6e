"""Classes in ONNX Runtime, the network in float16, for one image."""

_base_ = [
    "./classification_static.py",
    "../../../internimage/integrations/openmmlab/export/deploy_bases/onnxruntime_fp16.py",
]
