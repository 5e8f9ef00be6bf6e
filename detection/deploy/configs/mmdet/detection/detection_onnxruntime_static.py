"""Boxes in ONNX Runtime, for images of one size."""

_base_ = [
    "../_base_/base_static.py",
    "../../../../../internimage/integrations/openmmlab/export/deploy_bases/onnxruntime.py",
]
