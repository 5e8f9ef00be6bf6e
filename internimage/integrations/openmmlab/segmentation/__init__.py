"""What segmentors need beside the backbone, on top of mmseg.

Importing this registers in mmseg's registry::

    custom_imports = dict(
        imports=[
            "internimage.integrations.openmmlab",
            "internimage.integrations.openmmlab.segmentation",
        ]
    )

- ``InternImageSegmentor``: mmseg's encoder and decoder, with released weights converted as they
  are loaded, and windows that slide without a copy of all scores for each;
- ``InternImageMask2FormerHead``: Mask2Former with the released models' scores (needs mmdet);
- ``InternImageSegTTA``: the mean of a segmentor's probabilities over scales and flips;
- ``NYUDepthV2Dataset``, ``MapillaryToCityscapesDataset``: data sets that mmseg lacks;
- ``CheckSegMap``: the check of each mask behind its loading.
"""

from internimage.integrations.openmmlab.backbone import InternImageBackbone
from internimage.integrations.openmmlab.segmentation.datasets import (
    MapillaryToCityscapesDataset,
    NYUDepthV2Dataset,
)
from internimage.integrations.openmmlab.segmentation.mask2former_head import (
    InternImageMask2FormerHead,
)
from internimage.integrations.openmmlab.segmentation.segmentor import InternImageSegmentor
from internimage.integrations.openmmlab.segmentation.test_time_augmentation import InternImageSegTTA
from internimage.integrations.openmmlab.segmentation.transforms import CheckSegMap

__all__ = [
    "CheckSegMap",
    "InternImageBackbone",
    "InternImageMask2FormerHead",
    "InternImageSegTTA",
    "InternImageSegmentor",
    "MapillaryToCityscapesDataset",
    "NYUDepthV2Dataset",
]
