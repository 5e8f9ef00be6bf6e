"""A COCO data set that the converters to it fill, image by image."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tools.coco_files import categories, write_json


class CocoBuilder:
    """A COCO data set that grows image by image.

    Args:
        names: The classes; ids count from 1 in this order.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._ids = {name: index for index, name in enumerate(names, 1)}
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    def add_image(self, file_name: str, size: tuple[int, int]) -> int:
        """Adds an image of a width and height in pixels; returns its id."""
        width, height = size
        image = {"id": len(self._images) + 1, "file_name": file_name}
        self._images.append(image | {"width": width, "height": height})
        return len(self._images)

    def add_object(
        self,
        image: int,
        name: str,
        box: Sequence[float],
        *,
        area: float | None = None,
        crowd: bool = False,
        **more: Any,
    ) -> None:
        """Adds an object.

        Args:
            image: The image's id.
            name: The class.
            box: x, y, width, height in pixels.
            area: Pixels; left out, those of the box.
            crowd: Whether it is neither learned nor counted as missed.
            **more: Further fields, such as ``segmentation``.
        """
        annotation = {
            "id": len(self._annotations) + 1,
            "image_id": image,
            "category_id": self._ids[name],
            "bbox": [_short(value) for value in box],
            "area": _short(box[2] * box[3] if area is None else area),
            "iscrowd": int(crowd),
        }
        self._annotations.append(annotation | more)

    def write(self, path: Path) -> None:
        """Writes the file and prints what is in it.

        Raises:
            OSError: It cannot be written.
        """
        content = {"images": self._images, "annotations": self._annotations}
        write_json(path, content | {"categories": categories(self.names)})
        counts = Counter(entry["category_id"] for entry in self._annotations)
        crowds = sum(entry["iscrowd"] for entry in self._annotations)
        empty = len(self._images) - len({entry["image_id"] for entry in self._annotations})
        print(
            f"{path}: {len(self._images):,} images ({empty:,} without a box), "
            f"{len(self._annotations):,} boxes ({crowds:,} of them crowd regions)"
        )
        for index, name in enumerate(self.names, 1):
            print(f"    {name}: {counts[index]:,}")


def _short(value: float) -> float:
    """Returns a number of pixels to a hundredth, whole ones as such."""
    rounded = round(float(value), 2)
    return int(rounded) if rounded == int(rounded) else rounded
