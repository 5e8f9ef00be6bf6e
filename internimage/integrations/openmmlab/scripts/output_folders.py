"""Where the file of an image goes: mmdet and mmseg name it after the image, without its folder."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path


class OutputFolders:
    """Gives the files of images the sub-folders that the images have, and no two files one place.

    Args:
        image_dirs: The folders of images of the data sets; what lies in none has no sub-folder.
        suffix: Of the files; None keeps the images' own.
    """

    def __init__(self, image_dirs: Sequence[str], *, suffix: str | None = None) -> None:
        # The longest first, of those within one another.
        self._dirs = sorted(map(Path, image_dirs), key=lambda path: -len(path.parts))
        self._suffix = suffix
        self._images: dict[Path, str] = {}  # of each file, the image

    def folder_of(self, image: str) -> Path:
        """Return the folder for the file of an image, relative to that of all files.

        It is the same for an image that comes again. The second of two images that would have one
        file, as those of two data sets or ``a.jpg`` and ``a.png`` do, gets a folder ``2`` in front.
        """
        path = Path(image)
        start = next((item for item in self._dirs if path.is_relative_to(item)), path.parent)
        kept = path.relative_to(start)
        file = kept if self._suffix is None else kept.with_suffix(self._suffix)
        number, place = 1, file
        while (other := self._images.setdefault(place, image)) != image:
            number, place = number + 1, Path(str(number + 1)) / file
            last = other
        if number > 1:
            warnings.warn(f"{file} is of {last} already: that of {image} is {place}", stacklevel=2)
        return place.parent
