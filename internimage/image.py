"""Image files to model inputs, with Pillow alone.

PyTorch is imported where tensors are made: what runs exported models reads images with this as
well, and has none.

Shape legend: N images, S side of the model's square image in pixels.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from internimage.metadata import Interpolation, Preprocessing

if TYPE_CHECKING:
    from torch import Tensor

BACKGROUND = (255, 255, 255)
"""Colour behind transparent pixels: white, as on paper and in most viewers."""

MAX_ASPECT = 8
"""Beyond this ratio of sides, only the middle of the longer one is resized: the rest is cropped off
anyway, and a picture of one pixel by a million would otherwise become gigabytes."""

_ORIENTATION = 274  # the EXIF tag
_RAW_EXIF = "Raw profile type exif"  # where older programs keep them in a PNG
_SIDEWAYS = (5, 6, 7, 8)  # its values that exchange width and height


def load_image(path: str | Path) -> Image.Image:
    """Read an image file as 8-bit RGB.

    The first frame of an animation, turned upright as its EXIF tag says, 16-bit greys scaled to 8
    bit, transparency laid on white.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is a folder, empty, no image, truncated, or of an unreasonable size.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"load_image: expected an image file, got the folder {path}")
    if not path.exists():
        raise FileNotFoundError(f"load_image: expected an existing image file, got {path}")
    if path.stat().st_size == 0:
        raise ValueError(f"load_image: expected an image file, got the empty file {path}")
    return _decode(path, name=str(path), function="load_image")


def upright_size(path: str | Path) -> tuple[int, int]:
    """Return the width and height of an image file, pixels, turned as its EXIF data say.

    Only its header is read.

    Raises:
        ValueError: it is no image.
        OSError: it cannot be read.
    """
    try:
        with Image.open(path) as file:
            width, height = file.size
            # Of a PNG without EXIF data in its header, Pillow decodes all to look behind it.
            is_plain = file.format == "PNG" and not {"exif", _RAW_EXIF} & file.info.keys()
            sideways = not is_plain and file.getexif().get(_ORIENTATION) in _SIDEWAYS
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"expected an image, got {error}") from error
    return (height, width) if sideways else (width, height)


def decode_image(content: bytes, *, name: str) -> Image.Image:
    """Decode the content of an image file as :func:`load_image` does.

    Args:
        content: all bytes of the file.
        name: what to call it in an error.

    Raises:
        ValueError: it is empty, no image, truncated, or of an unreasonable size.
    """
    if not content:
        raise ValueError(f"decode_image: expected an image file, got the empty file {name}")
    return _decode(io.BytesIO(content), name=name, function="decode_image")


def _decode(file: Path | io.BytesIO, *, name: str, function: str) -> Image.Image:
    try:
        with warnings.catch_warnings():
            # Pillow warns at 89 million pixels and raises at twice that; both are too many here.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file) as opened:
                image = ImageOps.exif_transpose(opened)  # a copy, decoded
    except UnidentifiedImageError as error:
        raise ValueError(
            f"{function}: expected an image file, got {name}, which is none that Pillow can read"
        ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(
            f"{function}: expected an image of sane size, got {name} ({error})"
        ) from error
    except Exception as error:  # each of Pillow's plugins raises what its parser happens to raise
        raise ValueError(
            f"{function}: expected a whole image file, got {name}, truncated or broken "
            f"({type(error).__name__}: {error})"
        ) from error
    try:
        return to_rgb(image)
    except ValueError as error:
        raise ValueError(f"{function}: expected an image to show, got {name} ({error})") from error


def save_image(image: Image.Image, path: Path, *, quality: int = 95) -> None:
    """Write an image to a file, all of it or an error.

    Pillow hands a JPEG to the system and does not look at how much of it was taken: on a disk that
    becomes full it leaves a cut file and says nothing.

    Args:
        image: any image that the format can hold.
        path: the file; its suffix is the format.
        quality: of JPEG and WebP, 0-100.

    Raises:
        OSError: the disk is full, or the format cannot hold such an image.
        ValueError: no format has this suffix.
    """
    formats = Image.registered_extensions()
    if path.suffix.lower() not in formats:
        raise ValueError(f"save_image: expected a suffix of an image, got {path}")
    buffer = io.BytesIO()
    image.save(buffer, format=formats[path.suffix.lower()], quality=quality)
    path.write_bytes(buffer.getvalue())


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any Pillow mode to RGB.

    Raises:
        ValueError: the image holds floats, whose range nobody knows.
    """
    if image.mode == "F":
        raise ValueError("to_rgb: expected integer pixels, got an image of floats")
    if image.mode.startswith("I"):
        # 16-bit grey; Pillow's own conversion would clip everything above 255 to white.
        values = np.asarray(image).astype(np.float64).clip(0, 65535)
        return Image.fromarray((values / 257).round().astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        canvas = Image.new("RGBA", layer.size, (*BACKGROUND, 255))
        return Image.alpha_composite(canvas, layer).convert("RGB")
    return image.convert("RGB")


def preprocess(image: Image.Image, preprocessing: Preprocessing) -> Tensor:
    """Resize the shorter side, crop the centre, normalise.

    Args:
        image: RGB image of any size.
        preprocessing: what the model expects.

    Returns:
        Tensor (3, S, S), float32.
    """
    import torch

    pixels = torch.from_numpy(np.array(resize_and_crop(image, preprocessing)))
    # (S, S, 3) -> (1, 3, S, S)
    return normalize(pixels.permute(2, 0, 1)[None], preprocessing.mean, preprocessing.std)[0]


def resize_and_crop(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    """Resize the shorter side and crop the centre.

    Args:
        image: RGB image of any size.
        preprocessing: what the model expects.

    Returns:
        RGB image of S x S pixels.
    """
    side = preprocessing.image_size
    return resize_and_cut(
        image,
        round(side / preprocessing.crop_ratio),
        (side, side),
        interpolation=preprocessing.interpolation,
    )


def resize_and_cut(
    image: Image.Image, short: int, size: tuple[int, int], *, interpolation: Interpolation
) -> Image.Image:
    """Resize the shorter side and cut out the middle.

    Args:
        image: RGB image of any size.
        short: what the shorter side becomes, pixels; no less than the sides of the middle.
        size: height and width of the middle, pixels.
        interpolation: resampling filter.

    Returns:
        RGB image of that size.
    """
    image = _limit_aspect(image.convert("RGB"))
    # Whole numbers all the way, as torchvision: the product of a float may fall one pixel short.
    width, height = (short * side // min(image.size) for side in image.size)
    image = image.resize((width, height), Image.Resampling[interpolation.upper()])
    left, top = round((width - size[1]) / 2), round((height - size[0]) / 2)
    return image.crop((left, top, left + size[1], top + size[0]))


def normalize(pixels: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Scale to 0-1, subtract the mean, divide by the standard deviation.

    Args:
        pixels: (N, 3, S, S), uint8, of any strides.
        mean: mean of red, green, blue, 0-1.
        std: their standard deviation, 0-1.

    Returns:
        (N, 3, S, S), float32, contiguous, on the device of ``pixels``.
    """
    import torch

    if pixels.device.type == "cpu":
        # NumPy asks the system for large pages; PyTorch's memory is touched 4 kB at a time, which
        # takes three times as long as the arithmetic.
        x = torch.from_numpy(np.empty(pixels.shape, dtype=np.float32))
    else:
        x = torch.empty(pixels.shape, dtype=torch.float32, device=pixels.device)
    # A tensor and no number: CUDA multiplies by the inverse of a number, which rounds otherwise.
    full, mean_, std_ = (
        torch.tensor(values, dtype=torch.float32, device=x.device).view(-1, 1, 1)
        for values in ((255.0,), tuple(mean), tuple(std))
    )
    return x.copy_(pixels).div_(full).sub_(mean_).div_(std_)


def _limit_aspect(image: Image.Image) -> Image.Image:
    longest = MAX_ASPECT * min(image.size)
    width, height = (min(side, longest) for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))
