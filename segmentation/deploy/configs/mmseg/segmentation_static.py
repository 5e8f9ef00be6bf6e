"""A segmentor whose input has one size: what the leaves with a backend inherit from."""

_base_ = ["../../../../internimage/integrations/openmmlab/export/deploy_bases/onnx_config.py"]

# Labels, as the original. mmdeploy's SDK enlarges these to the image, where mmseg enlarges scores.
codebase_config = dict(type="mmseg", task="Segmentation", with_argmax=True)
