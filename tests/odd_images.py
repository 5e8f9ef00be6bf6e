"""Image files whose bytes are not the pixels that a viewer shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def write_odd_images(folder: Path, upright: np.ndarray) -> dict[str, np.ndarray]:
    """Write an image in unusual ways: turned by EXIF, 16-bit, with transparency, a palette, CMYK.

    Args:
        folder: where to write the files.
        upright: red, green, blue (H, W, 3), uint8; at least 40 rows.

    Returns:
        The stem of each file, and the pixels (H, W, 3) that a viewer shows.
    """
    grey = upright.mean(axis=-1).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # the viewer turns it clockwise by a quarter
    Image.fromarray(np.rot90(upright).copy()).save(folder / "turned.png", exif=exif)
    Image.fromarray(grey.astype(np.uint16) * 257).save(folder / "sixteen.png")
    alpha = np.full((*grey.shape, 1), 255, np.uint8)
    alpha[:40] = 0
    Image.fromarray(np.concatenate([upright, alpha], axis=-1)).save(folder / "glass.png")
    paper = upright.copy()
    paper[:40] = 255
    Image.fromarray(grey).convert("P").save(folder / "palette.gif")
    Image.fromarray(grey).save(folder / "grey.png")
    Image.fromarray(upright).convert("CMYK").save(folder / "print.tif")
    grey_shown = np.repeat(grey[..., None], 3, axis=-1)
    return {
        "turned": upright,
        "sixteen": grey_shown,
        "glass": paper,
        "palette": grey_shown,
        "grey": grey_shown,
        "print": upright,
    }
