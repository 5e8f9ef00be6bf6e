"""Classes in ONNX Runtime, for images of any number and size."""

_base_ = [
    "./classification_dynamic.py",
    "../../../internimage/integrations/openmmlab/export/deploy_bases/onnxruntime.py",
]
