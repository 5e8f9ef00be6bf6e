"""A classifier for one image at a time: what the leaves with a backend inherit from."""

_base_ = ["../../../internimage/integrations/openmmlab/export/deploy_bases/onnx_config.py"]

codebase_config = dict(type="internimage", task="Classification")
