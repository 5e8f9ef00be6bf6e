"""From what a source holds to pixels: one function for training, one for testing.

Both see the same picture: upright 8-bit RGB, as ``internimage.image`` makes it. Testing takes
Pillow's own; training asks a faster decoder first, which gives the same pixels for plain JPEGs.
"""

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from internimage.image import decode_image

JPEG_MAGIC = b"\xff\xd8"
ORIENTATION = 0x0112  # tag of EXIF
UPRIGHT = (None, 1)


def to_pixels(stored: bytes | np.ndarray, *, name: str) -> Tensor:
    """Decodes an image for training.

    Args:
        stored: What ``Source.read`` returned.
        name: What to call it in an error.

    Returns:
        (3, H, W), uint8; in memory the colours of a pixel are neighbours.

    Raises:
        ValueError: It is no whole image.
    """
    if isinstance(stored, np.ndarray):
        return torch.tensor(stored).permute(2, 0, 1)
    pixels = _decode_plain_jpeg(stored) if stored.startswith(JPEG_MAGIC) else None
    if pixels is None:
        pixels = torch.from_numpy(np.array(decode_image(stored, name=name))).permute(2, 0, 1)
    return pixels


def to_image(stored: bytes | np.ndarray, *, name: str) -> Image.Image:
    """Decodes an image for testing, as ``to_pixels`` but to an RGB image of Pillow."""
    if isinstance(stored, np.ndarray):
        return Image.fromarray(stored)
    return decode_image(stored, name=name)


def _decode_plain_jpeg(content: bytes) -> Tensor | None:
    """Decodes an upright grey or colour JPEG; None leaves all others, and any error, to Pillow."""
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:  # reads the header alone
            is_sane = image.width * image.height <= (Image.MAX_IMAGE_PIXELS or 0)
            is_plain = image.format == "JPEG" and image.mode in ("RGB", "L")
            if not (is_sane and is_plain and image.getexif().get(ORIENTATION) in UPRIGHT):
                return None
        # A copy, since PyTorch wants memory that may be written to.
        data = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        return decode_jpeg(data, mode=ImageReadMode.RGB)
    except Exception:  # Pillow decides whether the file is bad, and says why
        return None
