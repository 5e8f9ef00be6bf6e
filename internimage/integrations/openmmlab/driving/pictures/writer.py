"""Pages on disk: a PNG a frame, an animation a scene."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image
from torch import Tensor

from internimage.files import write_atomically
from internimage.integrations.openmmlab.driving.pictures.board import draw_board
from internimage.integrations.openmmlab.driving.pictures.colours import (
    ATTRIBUTE_COLOURS,
    CONNECTION,
    EGO,
    LANE,
    MAP_COLOURS,
    OCCUPANCY_COLOURS,
)
from internimage.integrations.openmmlab.driving.pictures.content import Range
from internimage.integrations.openmmlab.driving.sample import DrivingSample

AnimationKind = Literal["gif", "png"]

Pages = dict[str, list[tuple[int, Path]]]
"""Of each scene the times and files of its frames."""

SECONDS = 0.5
"""That an animation stays at a frame: keyframes of all three data sets are so far apart."""


GIF_SCALE = 2 / 3
"""Size of a page in a GIF, whose files are large; the letters can still be read."""


class BoardWriter:
    """Draws frames as they come, into one folder.

    Args:
        folder: made if need be; one frame is ``SCENE_TOKEN.png``, with a dash and eight digits
            for what a file's name cannot hold.
        extent: of the model's space, x0, y0, z0, x1, y1, z1 in metres.
        score_threshold: what scores less is left out, 0-1.

    Raises:
        ValueError: the folder cannot be made.
    """

    def __init__(self, folder: Path, extent: Range, *, score_threshold: float = 0.3) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(
                f"BoardWriter: expected a folder for the pictures, got {folder}: {error.strerror}"
            ) from error
        self._folder = folder
        self._extent = extent
        self._threshold = score_threshold
        self.pages: Pages = {}

    def add(self, inputs: Tensor, sample: DrivingSample) -> Path:
        """Draw a frame and return its file.

        Args:
            inputs: (T, N, 3, H, W) BGR, 0-255, as a data set gives them.
            sample: of the last frame, with what the model says.

        Raises:
            OSError: the file cannot be written.
            ValueError: the sample has nothing to draw.
        """
        page = draw_board(inputs, sample, self._extent, score_threshold=self._threshold)
        path = self._folder / f"{_plain(sample.scene)}_{_plain(sample.token)}.png"
        # The temporary file has the suffix too, by which Pillow knows the format.
        write_atomically(path, Image.fromarray(page).save)
        self.pages.setdefault(sample.scene, []).append((sample.timestamp, path))
        return path

    def animate(self, kind: AnimationKind, pages: Pages | None = None) -> list[Path]:
        """Write an animation ``SCENE.gif`` or ``SCENE.animated.png`` of each scene.

        Args:
            kind: of the files.
            pages: what to animate; None takes all that this writer has drawn.

        Returns:
            The files.

        Raises:
            OSError: a file cannot be read or written.
        """
        suffix = ".gif" if kind == "gif" else ".animated.png"
        paths = []
        for scene, frames in (self.pages if pages is None else pages).items():
            paths.append(self._folder / f"{_plain(scene)}{suffix}")
            # By time: frames of several ranks come one rank after the other.
            write_animation(paths[-1], [path for _, path in sorted(frames)])
        return paths


def write_animation(path: Path, pages: Sequence[Path]) -> None:
    """Write the pages of one scene as an endless animation.

    Args:
        path: ``*.gif``, smaller and in 256 colours a page, or ``*.png``.
        pages: files of pictures of one width, at least one; shorter ones get paper below.

    Raises:
        OSError: a file cannot be read or written.
    """
    # Read back from the files: the pages of a whole evaluation would be gigabytes.
    arrays = [np.asarray(Image.open(page).convert("RGB")) for page in pages]
    height, width = max(len(array) for array in arrays), arrays[0].shape[1]
    scale = GIF_SCALE if path.suffix == ".gif" else 1  # a PNG holds the very pages
    images = [
        Image.fromarray(
            # Legends differ in rows. A page's lowest row is blank, and what repeats it too.
            np.pad(array, ((0, height - len(array)), (0, 0), (0, 0)), mode="edge")
        ).resize((round(scale * width), round(scale * height)), Image.Resampling.LANCZOS)
        for array in arrays
    ]
    if path.suffix == ".gif":
        images = [_with_palette(image) for image in images]
    write_atomically(
        path,
        lambda file: images[0].save(
            file,
            save_all=True,
            append_images=images[1:],
            duration=round(1000 * SECONDS),
            loop=0,  # for ever
        ),
    )


def _with_palette(image: Image.Image) -> Image.Image:
    """Return a page in 256 colours, among them all that mean something, to the bit.

    By itself a palette follows what covers the page: the little red car took a divider's orange.
    """
    meant = {EGO, LANE, CONNECTION, *MAP_COLOURS, *OCCUPANCY_COLOURS, *ATTRIBUTE_COLOURS}
    # A palette has 256 places. Those of a meaning are set, the picture chooses the rest.
    others = image.quantize(256 - len(meant)).getpalette() or []
    palette = Image.new("P", (1, 1))
    palette.putpalette([*(value for colour in sorted(meant) for value in colour), *others])
    # Dithering would mix a flat colour out of two others, differently in each frame.
    return image.quantize(palette=palette, dither=Image.Dither.NONE)


def _plain(name: str) -> str:
    """Return a name that is one of a file, another one for each: tokens are anything at all."""
    plain = re.sub(r"[^\w.-]+", "-", str(name))
    # "a/b" and "a-b" would otherwise share a file.
    digest = hashlib.sha256(str(name).encode()).hexdigest()[:8]
    return plain if plain == name else f"{plain}-{digest}"
