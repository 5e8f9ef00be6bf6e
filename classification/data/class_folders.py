"""Class folders: FOLDER/<class>/.../image.jpg, the class of an image being its first folder."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from classification.data.source import IMAGE_SUFFIXES, FileSource


class LabelledPaths(NamedTuple):
    """Images by class.

    Args:
        paths: Relative paths, by class and then by name.
        labels: The class of each, an index into ``class_names``.
        class_names: The folders' names, sorted.
    """

    paths: list[str]
    labels: list[int]
    class_names: tuple[str, ...]


def open_class_folders(folder: Path) -> FileSource:
    """Opens the images of class folders.

    Hidden files and folders are left out, and so is whatever has no image's suffix.

    Raises:
        ValueError: There is no class folder, or one has no image.
    """
    classes = sorted(entry.name for entry in os.scandir(folder) if _is_class_folder(entry))
    found = group_by_class(
        (f"{name}/{path}" for name in classes for path in _image_paths(folder / name)),
        classes,
        where=str(folder),
    )
    return FileSource(folder, *found)


def group_by_class(paths: Iterable[str], classes: Iterable[str], *, where: str) -> LabelledPaths:
    """Returns images with their labels, in a fixed order.

    Args:
        paths: Paths of images, the first part being the class.
        classes: The folders that are there, with images or without.
        where: The folder or archive they are in.

    Raises:
        ValueError: There is no class, or one has no image.
    """
    class_names = tuple(sorted(classes))
    if not class_names:
        raise ValueError(f"open_class_folders: expected class folders in {where}, got none")
    label_of = {name: label for label, name in enumerate(class_names)}
    sorted_paths = sorted(paths, key=lambda path: path.split("/"))
    labels = [label_of[path.partition("/")[0]] for path in sorted_paths]
    counts = Counter(labels)
    empty = [name for label, name in enumerate(class_names) if not counts[label]]
    if empty:
        raise ValueError(
            f"open_class_folders: expected images in each class folder of {where}, got none in "
            f"{name_some(empty)}"
        )
    return LabelledPaths(sorted_paths, labels, class_names)


def is_image_name(name: str) -> bool:
    """Returns whether a file is to be read: it has an image's suffix and is not hidden."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def name_some(names: Iterable[str], *, limit: int = 5) -> str:
    """Returns the first names and how many more there are."""
    names = list(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _is_class_folder(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir() and not entry.name.startswith(".")


def _image_paths(folder: Path) -> Iterator[str]:
    """Yields the images below a folder, relative to it; linked folders count as folders."""
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        relative = os.path.relpath(parent, folder)
        prefix = "" if relative == "." else f"{relative}/"
        yield from (prefix + name for name in files if is_image_name(name))
