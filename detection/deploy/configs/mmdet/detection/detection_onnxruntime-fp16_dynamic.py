"""Boxes in ONNX Runtime, the network in float16, for images of any size."""

_base_ = [
    "../_base_/base_dynamic.py",
    "../../../../../internimage/integrations/openmmlab/export/deploy_bases/onnxruntime_fp16.py",
]
