"""A segmentor whose input has one size: what the leaves with a backend inherit from."""

_base_ = ["../../../../internimage/integrations/openmmlab/export/deploy_bases/onnx_config.py"]

codebase_config = dict(type="mmseg", task="Segmentation", with_argmax=True)
