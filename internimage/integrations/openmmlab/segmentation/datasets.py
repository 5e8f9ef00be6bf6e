"""Data sets that mmseg lacks: NYU Depth v2 with 40 classes, Mapillary in Cityscapes' classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from mmseg.datasets import (
    ADE20KDataset,
    BaseSegDataset,
    CityscapesDataset,
    MapillaryDataset_v1,
)
from mmseg.registry import DATASETS

from internimage.integrations.openmmlab.data.mask_file import IGNORED

NYU_CLASSES = (
    *("wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf"),
    *("picture", "counter", "blinds", "desk", "shelves", "curtain", "dresser", "pillow", "mirror"),
    *("floor mat", "clothes", "ceiling", "books", "refrigerator", "television", "paper", "towel"),
    *("shower curtain", "box", "whiteboard", "person", "night stand", "toilet", "sink", "lamp"),
    *("bathtub", "bag", "other structure", "other furniture", "other prop"),
)
"""The 40 classes of Gupta et al. (CVPR 2013), in the order of their labels."""

# The original's choice, from its Mapillary recipe: crosswalks, for one, are not road in it.
VISTAS_OF_CITYSCAPES: dict[str, tuple[str, ...]] = {
    "road": ("Road", "Lane Marking - General", "Manhole"),
    "sidewalk": ("Curb", "Sidewalk"),
    "building": ("Building",),
    "wall": ("Wall",),
    "fence": ("Fence",),
    "pole": ("Pole", "Utility Pole"),
    "traffic light": ("Traffic Light",),
    "traffic sign": ("Traffic Sign (Front)",),
    "vegetation": ("Vegetation",),
    "terrain": ("Terrain",),
    "sky": ("Sky",),
    "person": ("Person",),
    "rider": ("Bicyclist", "Motorcyclist", "Other Rider"),
    "car": ("Car",),
    "truck": ("Truck",),
    "bus": ("Bus",),
    "train": ("On Rails",),
    "motorcycle": ("Motorcycle",),
    "bicycle": ("Bicycle",),
}
"""The classes of Mapillary Vistas 1.2 that a class of Cityscapes takes; all others are ignored."""


@DATASETS.register_module()
class NYUDepthV2Dataset(BaseSegDataset):
    """NYU Depth v2, the colour images and 40 classes; the depths are not read.

    Masks hold 1 to 40, and 0 for what is ignored.
    """

    METAINFO: ClassVar[dict[str, Any]] = {
        "classes": NYU_CLASSES,
        # A scale of colours that are easy to tell apart; the classes have nothing in common.
        "palette": ADE20KDataset.METAINFO["palette"][: len(NYU_CLASSES)],
    }

    def __init__(
        self,
        img_suffix: str = ".png",
        seg_map_suffix: str = ".png",
        reduce_zero_label: bool = True,  # 0 is ignored, and 1 becomes the first class
        **kwargs: Any,
    ) -> None:
        super().__init__(
            img_suffix=img_suffix,
            seg_map_suffix=seg_map_suffix,
            reduce_zero_label=reduce_zero_label,
            **kwargs,
        )


@DATASETS.register_module()
class MapillaryToCityscapesDataset(BaseSegDataset):
    """Mapillary Vistas 1.2 in the 19 classes of Cityscapes.

    Masks hold the numbers of the 65 classes, and 65 for what has none; 255, where there is any,
    stays what it is, which is ignored.
    """

    METAINFO: ClassVar[dict[str, Any]] = CityscapesDataset.METAINFO

    def __init__(
        self, img_suffix: str = ".jpg", seg_map_suffix: str = ".png", **kwargs: Any
    ) -> None:
        super().__init__(img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, **kwargs)

    @classmethod
    def get_label_map(cls, new_classes: Sequence[str] | None = None) -> dict[int, int]:
        """Return the label to learn of each label in a mask, by which the loader replaces it.

        Raises:
            ValueError: ``new_classes`` are others than Cityscapes'.
        """
        classes = cls.METAINFO["classes"]
        if new_classes is not None and tuple(new_classes) != tuple(classes):
            raise ValueError(
                f"MapillaryToCityscapesDataset: expected the classes of Cityscapes "
                f"({', '.join(classes)}), got {', '.join(map(str, new_classes))}"
            )
        learnt = {
            vistas: label
            for label, name in enumerate(classes)
            for vistas in VISTAS_OF_CITYSCAPES[name]
        }
        # mmseg's version 1 is Vistas 1.2, with "Unlabeled" as the last name, 65.
        names = MapillaryDataset_v1.METAINFO["classes"]
        return {number: learnt.get(name, IGNORED) for number, name in enumerate(names)}
