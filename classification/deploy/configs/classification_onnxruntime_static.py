"""Classes in ONNX Runtime, for one image."""

_base_ = [
    "./classification_static.py",
    "../../../internimage/integrations/openmmlab/export/deploy_bases/onnxruntime.py",
]
