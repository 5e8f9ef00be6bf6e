"""What exported models of all tasks have in common: an image in memory in, arrays out."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from internimage.answer_files import Answer
from internimage.colours import Colour, random_palette
from internimage.image import load_image, to_rgb
from internimage.runtime.inputs import feeds
from internimage.runtime.metadata import Metadata
from internimage.runtime.sessions import Arrays, Run

ImageLike = str | Path | Image.Image | np.ndarray
"""A file, an image of Pillow, or an array of height first, uint8, red-green-blue."""

MASK_THRESHOLD = 0.5
"""Where a file says nothing."""


class Model:
    """What exported models of all tasks have in common.

    Args:
        metadata: what the file says of itself.
        run: from its inputs to its outputs, both by name.
    """

    has_label_maps: ClassVar[bool] = False
    """Whether answers about images hold one."""

    outputs: ClassVar[dict[str, int]] = {}
    """The outputs that a file may have, and how many axes each has behind the batch's."""

    needed: ClassVar[tuple[frozenset[str], ...]] = ()
    """Those that suffice for an answer, alternatives."""

    def __init__(self, metadata: Metadata, run: Run) -> None:
        self.metadata = metadata
        self.palette: list[Colour] = list(metadata.palette or ())
        self._run = run

    @property
    def mask_threshold(self) -> float:
        """The lowest probability of a mask's pixel, or of a single class."""
        found = self.metadata.mask_threshold
        return MASK_THRESHOLD if found is None else found

    def answer(self, image: np.ndarray) -> Answer:
        """Return the answer about an image (H, W, 3), uint8, blue-green-red, and its picture.

        Raises:
            ValueError: there is none.
        """
        raise NotImplementedError

    def sum_up(self, counts: Counter[Any]) -> dict[str, Any]:
        """Return what the JSON says about several images whose counts were added up."""
        return dict(counts)

    def run(self, pixels: np.ndarray, size: tuple[int, int]) -> dict[str, np.ndarray]:
        """Return the outputs for one image, without the axis of the batch.

        Args:
            pixels: (3, H, W), float32, normalised.
            size: height and width of the part that holds the image.

        Raises:
            ValueError: the model cannot take it, or an output is missing, of another shape or not
                finite.
        """
        found: Arrays = self._run(feeds(pixels, self.metadata, size))
        if not any(names <= found.keys() for names in self.needed):
            wanted = " or ".join(" and ".join(sorted(names)) for names in self.needed)
            raise ValueError(
                f"Model.run: expected a model with the outputs {wanted}, got "
                f"{self.metadata.model} with {', '.join(found)}"
            )
        for name in self.outputs.keys() & found.keys():
            if found[name].ndim != 1 + self.outputs[name] or not found[name].size:
                raise ValueError(
                    f"Model.run: expected {name} with {1 + self.outputs[name]} axes, got "
                    f"{self.metadata.model} with {found[name].shape}"
                )
        # A file of several images a run has had this one in each place, see feeds().
        outputs = {name: found[name][0] for name in self.outputs if name in found}
        for name, array in outputs.items():
            # NaN and infinity survive a sum, which takes no array of flags; in float64 it does not
            # overflow where every number is finite.
            if array.dtype.kind == "f" and not np.isfinite(array.sum(dtype=np.float64)):
                raise ValueError(
                    f"Model.run: expected finite {name}, got NaN or infinity: the weights hold it, "
                    "or numbers of 16 bits were too small"
                )
        return outputs

    def colour_all(self, num_classes: int) -> list[Colour]:
        """Return a colour for each of so many classes: the file's, then others."""
        known = len(self.palette)
        if known < num_classes:
            # Kept, and counted from the first class on: a class has one colour in all pictures.
            self.palette = [*self.palette, *random_palette(num_classes)[known:]]
        return self.palette


def read_pixels(image: ImageLike) -> np.ndarray:
    """Return an image as an array of height first, uint8, red-green-blue.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no image, or an array of another kind.
    """
    if isinstance(image, np.ndarray):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise ValueError(
                "read_pixels: expected an array (height, width, 3) of uint8, got "
                f"{image.shape} of {image.dtype}"
            )
        return image
    return np.asarray(to_rgb(image) if isinstance(image, Image.Image) else load_image(image))
