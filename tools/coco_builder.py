"""What the converters to COCO share: a growing data set, class names, mistakes by file and line."""

import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tools.coco_files import categories, write_json

MAX_SHOWN = 20  # mistakes; a wrong flag makes one of every line
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


class Mistakes:
    """Collects what is wrong with the input, so that one run shows all of it.

    Args:
        tool: The tool's name.
    """

    def __init__(self, tool: str) -> None:
        self.tool = tool
        self._lines: list[str] = []

    def add(self, path: Path, text: str, *, line: int | None = None) -> None:
        """Notes a mistake.

        Args:
            path: The file that has it.
            text: ``expected <rule>, got <value>``.
            line: Where, from 1; None where a file has no lines that matter.
        """
        where = f"{path}" if line is None else f"{path}:{line}"
        self._lines.append(f"{where}: {text}")

    def stop_if_any(self) -> None:
        """Prints a line a mistake and ends the tool.

        Raises:
            ValueError: There is a mistake.
        """
        if not self._lines:
            return
        for line in self._lines[:MAX_SHOWN]:
            print(f"{self.tool}: {line}", file=sys.stderr)
        rest = len(self._lines) - MAX_SHOWN
        more = f", of which {rest:,} are not shown" if rest > 0 else ""
        raise ValueError(f"{len(self._lines):,} mistakes{more}; nothing was written")


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


def read_class_names(words: Sequence[str], *, tool: str) -> tuple[str, ...]:
    """Returns class names that are given as such, or in a file.

    Args:
        words: The names; or one file, a name a line, or YAML with ``names`` as YOLO has it.
        tool: Who asks, for the error.

    Raises:
        ValueError: The file holds no names, or a name is there twice.
        OSError: It cannot be read.
    """
    names = list(words)
    path = Path(words[0])
    if len(words) == 1 and path.suffix in (".yaml", ".yml"):
        names = _names_of_yaml(path, tool=tool)
    elif len(words) == 1 and (path.is_file() or path.suffix in (".txt", ".names")):
        names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        names = [name for name in names if name]
    if not names or len(set(names)) < len(names):
        raise ValueError(
            f"{tool}: expected --classes with names that differ, got {', '.join(names) or 'none'}"
        )
    return tuple(names)


def _names_of_yaml(path: Path, *, tool: str) -> list[str]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{tool}: expected a YAML file, got {path} ({error})") from error
    names = content.get("names") if isinstance(content, Mapping) else None
    if isinstance(names, Mapping) and sorted(names) == list(range(len(names))):
        names = [names[index] for index in range(len(names))]
    if not isinstance(names, list):
        raise ValueError(
            f"{tool}: expected {path} with names: a list, or a name for each of 0, 1, ...; got "
            f"{names!r}"
        )
    return [str(name) for name in names]


def images_by_stem(folder: Path) -> dict[str, str]:
    """Returns the path of each image below a folder, relative to it, by the same without suffix."""
    found = {}
    for root, folders, files in os.walk(folder, followlinks=True):
        folders.sort()
        for name in sorted(files):
            stem, suffix = os.path.splitext(name)
            if suffix.lower() in SUFFIXES:
                relative = Path(root, name).relative_to(folder)
                found[(relative.parent / stem).as_posix()] = relative.as_posix()
    return found


def _short(value: float) -> float:
    """Returns a number of pixels to a hundredth, whole ones as such."""
    rounded = round(float(value), 2)
    return int(rounded) if rounded == int(rounded) else rounded
