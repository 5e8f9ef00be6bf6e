"""Where images come from: the bytes of image i, its label and its name.

Shape legend: H W pixels of one image, I images of a source, K classes.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from classification.data.packed import PackedPaths

IMAGE_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .bmp .gif .tif .tiff .ppm .pgm .avif .jp2".split()
)


class Source(ABC):
    """The images of one half of a data set. Workers get a copy by forking or pickling.

    Args:
        labels: (I,) The class of each image, from 0.
        class_names: The name of each class; K of them.
        meta: What a model takes beside the image: arrays (I, any) of floats.
        groups: (I,) The file that each image lies in, ascending, where many share one: the order
            of an epoch then reads from a few files at a time.

    Raises:
        ValueError: There is no image, a label is out of range, or an array has another length.
    """

    def __init__(
        self,
        labels: Sequence[int] | np.ndarray,
        class_names: Sequence[str],
        *,
        meta: Sequence[np.ndarray] = (),
        groups: np.ndarray | None = None,
    ) -> None:
        self.labels = np.asarray(labels, dtype=np.int64)
        self.class_names = tuple(class_names)
        self.meta = tuple(np.asarray(values, dtype=np.float32) for values in meta)
        self.groups = groups
        name = type(self).__name__
        if not len(self.labels):
            raise ValueError(f"{name}: expected images >= 1, got 0")
        lowest, highest = self.labels.min(), self.labels.max()
        if lowest < 0 or highest >= len(self.class_names):
            raise ValueError(
                f"{name}: expected 0 <= label < {len(self.class_names)} = number of classes, "
                f"got {lowest if lowest < 0 else highest}"
            )
        for values in (*self.meta, *([] if groups is None else [groups])):
            if len(values) != len(self.labels):
                raise ValueError(
                    f"{name}: expected one row of meta and groups for each of {len(self.labels)} "
                    f"images, got {len(values)}"
                )

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def read(self, index: int) -> bytes | np.ndarray:
        """Returns an image as it is stored: an encoded file, or its pixels (H, W, 3) in uint8.

        Raises:
            OSError: It cannot be read.
        """

    @abstractmethod
    def name(self, index: int) -> str:
        """Returns what an image is called in messages: a path."""


class ArraySource(Source):
    """Images that are in memory as pixels.

    Args:
        pixels: (I, H, W, 3), uint8.
        labels: (I,) The class of each image.
        class_names: The name of each class.
        name: What the data set is called.
    """

    def __init__(
        self, pixels: np.ndarray, labels: np.ndarray, class_names: Sequence[str], *, name: str
    ) -> None:
        super().__init__(labels, class_names)
        self.pixels = pixels
        self.set_name = name

    def read(self, index: int) -> np.ndarray:
        """Returns the pixels of an image, (H, W, 3)."""
        return self.pixels[index]

    def name(self, index: int) -> str:
        """Returns the name of the data set and the index."""
        return f"{self.set_name}[{index}]"


class FileSource(Source):
    """Images that are files of their own.

    Args:
        root: The folder that the paths are relative to.
        paths: The path of each image.
        labels: (I,) The class of each image.
        class_names: The name of each class.
        meta: As for ``Source``.

    Raises:
        ValueError: There are not as many paths as labels, or as for ``Source``.
    """

    def __init__(
        self,
        root: Path,
        paths: Iterable[str],
        labels: Sequence[int] | np.ndarray,
        class_names: Sequence[str],
        *,
        meta: Sequence[np.ndarray] = (),
    ) -> None:
        super().__init__(labels, class_names, meta=meta)
        self.root = str(root)
        self.paths = PackedPaths(paths)
        if len(self.paths) != len(self.labels):
            raise ValueError(
                f"FileSource: expected one path for each of {len(self.labels)} labels, "
                f"got {len(self.paths)}"
            )

    def read(self, index: int) -> bytes:
        """Returns the content of a file."""
        with open(self.name(index), "rb", buffering=0) as file:
            return file.read()

    def name(self, index: int) -> str:
        """Returns the path of a file."""
        return f"{self.root}/{self.paths[index]}"


Kind = Literal["photos", "digits"]


@dataclass(frozen=True)
class ImageSets:
    """A data set: what a builder in ``classification.data.DATASETS`` makes of the settings.

    Args:
        train: The images to train on.
        test: The images to evaluate on.
        class_names: The name of each class, as files of weights keep them.
        kind: "photos" are cropped, mirrored and augmented; "digits" are neither cropped nor
            mirrored: a mirrored or cropped digit is no digit.

    Raises:
        ValueError: One of both halves has another number of classes or of meta vectors.
    """

    train: Source
    test: Source
    class_names: tuple[str, ...]
    kind: Kind = "photos"

    def __post_init__(self) -> None:
        for half, source in (("training", self.train), ("test", self.test)):
            if len(source.class_names) != len(self.class_names):
                raise ValueError(
                    f"ImageSets: expected {len(self.class_names)} classes of the {half} images, "
                    f"got {len(source.class_names)}"
                )
        shapes = [[values.shape[1:] for values in half.meta] for half in (self.train, self.test)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"ImageSets: expected meta of one shape, got {shapes}")
