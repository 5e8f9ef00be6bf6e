"""What detectors need beside the backbone, on top of mmdet.

Importing this registers in mmdet's registry::

    custom_imports = dict(imports=["internimage.integrations.openmmlab.detection"])

- ``InternImageDINO``, ``InternImageDINOHead``: DINO as the released models compute it, with the
  federated loss for LVIS as the head's option ``fed_loss``;
- ``CBInternImage``, ``CBChannelMapper``, ``CBDINO``: two streams and their DINO.
"""

from internimage.integrations.openmmlab.backbone import InternImageBackbone
from internimage.integrations.openmmlab.detection.cb_dino import CBDINO, CBChannelMapper
from internimage.integrations.openmmlab.detection.cb_internimage import CBInternImage
from internimage.integrations.openmmlab.detection.dino import InternImageDINO
from internimage.integrations.openmmlab.detection.dino_head import InternImageDINOHead
from internimage.integrations.openmmlab.detection.federated_loss import FederatedClasses

__all__ = [
    "CBDINO",
    "CBChannelMapper",
    "CBInternImage",
    "FederatedClasses",
    "InternImageBackbone",
    "InternImageDINO",
    "InternImageDINOHead",
]
