"""What the tools that write semantic masks share: files with colours, a summary, whole folders."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

IGNORED = 255  # the label that is not learned
MAX_CLASSES = 255  # labels 0-254
IGNORED_COLOUR = (224, 224, 224)


class MaskWriter:
    """Writes masks and counts what is in them.

    Args:
        folder: Where they go.
        names: The classes; a pixel's value is its class's place here.
        palette: (R, G, B), 0-255, of each class: how a viewer shows it. None chooses colours.
    """

    def __init__(
        self,
        folder: Path,
        names: Sequence[str],
        palette: Sequence[tuple[int, int, int]] | None = None,
    ) -> None:
        self.folder = folder
        self.names = tuple(names)
        self.palette = list(palette) if palette is not None else choose_palette(len(names))
        self._pixels = np.zeros(256, dtype=np.int64)
        self._masks_with = np.zeros(256, dtype=np.int64)
        self._count = 0
        flat = [value for colour in self.palette for value in colour]
        rest = 256 - len(self.palette) - 1
        self._palette = [*flat, *[0] * (3 * rest), *IGNORED_COLOUR]

    def write(self, name: str, labels: np.ndarray) -> None:
        """Writes a mask as an 8-bit PNG with colours.

        Args:
            name: The file below the folder, ``.png`` at its end; sub-folders are made.
            labels: (H, W), uint8: 0 for the first class, 255 for what is ignored.

        Raises:
            OSError: It cannot be written.
        """
        counts = np.bincount(labels.ravel(), minlength=256)
        self._pixels += counts
        self._masks_with += counts > 0
        self._count += 1
        picture = Image.fromarray(labels)
        picture.putpalette(self._palette)
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)

    def summary(self, out: Path) -> str:
        """Returns what was written to ``out``, with the settings that a training needs."""
        total = max(int(self._pixels.sum()), 1)
        lines = [
            f"{out}: {self._count:,} masks, {self._pixels[IGNORED] / total:.1%} of pixels ignored"
        ]
        for label, name in enumerate(self.names):
            share = self._pixels[label] / total
            lines.append(f"{label:>7}  {share:>7.2%}  {self._masks_with[label]:>9,} masks  {name}")
        # Quoted for a shell: classes as Python writes them, without spaces.
        names = ",".join(repr(name) for name in self.names)
        comma = "," if len(self.names) == 1 else ""
        palette = ",".join(f"[{r},{g},{b}]" for r, g, b in self.palette)
        lines.append(f'--cfg-options "classes=({names}{comma})" "palette=[{palette}]"')
        return "\n".join(lines)


def choose_palette(count: int) -> list[tuple[int, int, int]]:
    """Returns colours that differ: black for the first class, then hues far apart."""
    colours = [(0, 0, 0)]
    for index in range(1, count):
        hue = round(index * 0.618034 * 256) % 256  # the golden ratio spreads any number of them
        value = (255, 190, 225)[index % 3]
        pixel = Image.new("HSV", (1, 1), (hue, 200, value)).convert("RGB").getpixel((0, 0))
        assert isinstance(pixel, tuple)
        colours.append((int(pixel[0]), int(pixel[1]), int(pixel[2])))
    return colours


def top_names(names: Sequence[str]) -> tuple[str, ...]:
    """Returns the first parts of relative paths: what a folder of these files holds."""
    return tuple(dict.fromkeys(name.split("/")[0] for name in names))


def mask_names(names: Sequence[str]) -> Iterator[str]:
    """Yields for each relative path of an image the path of its mask: the same with ``.png``."""
    for name in names:
        yield Path(name).with_suffix(".png").as_posix()
