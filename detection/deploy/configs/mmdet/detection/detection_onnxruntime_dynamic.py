"""Boxes in ONNX Runtime, for images of any size."""

_base_ = [
    "../_base_/base_dynamic.py",
    "../../../../../internimage/integrations/openmmlab/export/deploy_bases/onnxruntime.py",
]
