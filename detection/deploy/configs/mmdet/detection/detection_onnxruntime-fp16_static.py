"""Boxes in ONNX Runtime, the network in float16, for images of one size."""

_base_ = [
    "../_base_/base_static.py",
    "../../../../../internimage/integrations/openmmlab/export/deploy_bases/onnxruntime_fp16.py",
]
