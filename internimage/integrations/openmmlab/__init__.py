"""InternImage for OpenMMLab: the backbone, its optimizer groups, its released weights.

Importing this registers, in the root registries of mmengine, so that mmdet, mmseg and mmdet3d find
them alike::

    custom_imports = dict(imports=["internimage.integrations.openmmlab"])

- ``InternImage``: the backbone;
- ``CustomLayerDecayOptimizerConstructor``: layer-wise learning rates.

What needs mmdet as well is in ``internimage.integrations.openmmlab.detection``.
"""

from internimage.integrations.openmmlab.backbone import InternImageBackbone
from internimage.integrations.openmmlab.convert import convert_state_dict
from internimage.integrations.openmmlab.layer_decay import LayerDecayOptimWrapperConstructor

__all__ = ["InternImageBackbone", "LayerDecayOptimWrapperConstructor", "convert_state_dict"]
