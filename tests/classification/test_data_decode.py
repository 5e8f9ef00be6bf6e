"""Every kind of image file becomes the upright RGB picture that a viewer shows."""

import numpy as np
import pytest
from PIL import Image

from classification.data.decode import to_image, to_pixels
from internimage.image import load_image
from tests.classification.image_files import encode, picture

ORIENTATION = 0x0112


def with_orientation(value: int) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = value
    return encode(picture(0), exif=exif)


def in_mode(mode: str, format_: str, **options: object) -> bytes:
    return encode(picture(0).convert(mode), format_, **options)


def transparent(mode: str) -> bytes:
    image = picture(0).convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return encode(image.convert(mode), "PNG")


def palette_with_transparency() -> bytes:
    return encode(picture(0).quantize(16), "PNG", transparency=3)


def grey_of_16_bits() -> bytes:
    values = np.linspace(0, 65535, 24 * 18).reshape(18, 24).astype(np.uint16)
    return encode(Image.fromarray(values), "PNG")


def animated(format_: str, **options: object) -> bytes:
    return encode(picture(0), format_, save_all=True, append_images=[picture(1)], **options)


KINDS = {
    **{f"EXIF orientation {value}": with_orientation(value) for value in range(1, 9)},
    "JPEG": encode(picture(0)),
    "JPEG, progressive": encode(picture(0), progressive=True, quality=95),
    "JPEG, 4:4:4": encode(picture(0), subsampling=0),
    "JPEG, 4:2:2": encode(picture(0), subsampling=1),
    "JPEG of RGB": encode(picture(0), keep_rgb=True),
    "JPEG, grey": in_mode("L", "JPEG"),
    "JPEG, CMYK inverted by Adobe": in_mode("CMYK", "JPEG"),
    "JPEG, large": encode(picture(0, (501, 377)), quality=90),
    "MPO": animated("MPO"),
    "PNG": encode(picture(0), "PNG"),
    "PNG, grey": in_mode("L", "PNG"),
    "PNG, one bit": in_mode("1", "PNG"),
    "PNG, grey of 16 bits": grey_of_16_bits(),
    "PNG, palette": encode(picture(0).quantize(16), "PNG"),
    "PNG, palette with transparency": palette_with_transparency(),
    "PNG, LA": transparent("LA"),
    "PNG, RGBA": transparent("RGBA"),
    "GIF": animated("GIF"),
    "WebP": encode(picture(0), "WEBP"),
    "WebP, animated": animated("WEBP", lossless=True),
    "PNG, animated": animated("PNG"),
    "TIFF, CMYK": in_mode("CMYK", "TIFF"),
    "BMP": encode(picture(0), "BMP"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_training_testing_and_predicting_see_the_same_pixels(tmp_path, kind: str):
    path = tmp_path / "image"
    path.write_bytes(KINDS[kind])
    expected = np.asarray(load_image(path))
    assert np.array_equal(np.asarray(to_image(KINDS[kind], name="x")), expected)
    pixels = to_pixels(KINDS[kind], name="x")
    assert pixels.stride(0) == 1  # the colours of a pixel are neighbours
    assert np.array_equal(pixels.permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "large" not in kind])
def test_the_picture_is_the_one_that_was_saved(kind: str):
    pixels = to_pixels(KINDS[kind], name="x").permute(1, 2, 0).numpy().astype(int)
    if "16 bits" in kind:
        expected = np.rint(np.linspace(0, 255, 24 * 18)).reshape(18, 24, 1).repeat(3, axis=2)
    elif "transparency" in kind:
        expected = np.asarray(picture(0).quantize(16).convert("RGB")).copy()
        expected[np.asarray(picture(0).quantize(16)) == 3] = 255
    elif kind in ("PNG, LA", "PNG, RGBA"):
        alpha = np.asarray(Image.linear_gradient("L").resize((24, 18)))[..., None] / 255
        colours = picture(0).convert("L") if "LA" in kind else picture(0)
        expected = np.asarray(colours.convert("RGB")) * alpha + 255 * (1 - alpha)
    else:
        modes = {"grey": "L", "one bit": "1", "palette": "P", "GIF": "P"}
        mode = next((modes[word] for word in modes if word in kind), "RGB")
        image = picture(0).quantize(16) if kind == "PNG, palette" else picture(0)
        if mode in ("L", "1"):
            image = image.convert(mode)
        if kind.startswith("EXIF"):
            image = turned(image, int(kind[-1]))
        expected = np.asarray(image.convert("RGB"))
    assert pixels.shape == expected.shape
    # Lossy kinds err by a few grey levels; a wrong kind of decoding errs by dozens.
    assert np.abs(pixels - expected).mean() < 10, kind


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """What a camera held so stores for a picture that is ``image`` when it stores it upright."""
    methods = Image.Transpose
    return {
        1: lambda: image,
        2: lambda: image.transpose(methods.FLIP_LEFT_RIGHT),
        3: lambda: image.transpose(methods.ROTATE_180),
        4: lambda: image.transpose(methods.FLIP_TOP_BOTTOM),
        5: lambda: image.transpose(methods.TRANSPOSE),
        6: lambda: image.transpose(methods.ROTATE_270),
        7: lambda: image.transpose(methods.TRANSVERSE),
        8: lambda: image.transpose(methods.ROTATE_90),
    }[orientation]()


BAD = {
    "empty": (b"", "the empty file some.jpg"),
    "text": (b"this is no image\n" * 9, "some.jpg, which is none that Pillow can read"),
    "a JPEG cut in its middle": (KINDS["JPEG, large"][:4000], "some.jpg, truncated or broken"),
    "a JPEG cut in its header": (KINDS["JPEG"][:90], "some.jpg"),
    "a JPEG without its end": (KINDS["JPEG, large"][:-2], "some.jpg, truncated or broken"),
    "a PNG cut off": (KINDS["PNG"][:-40], "some.jpg, truncated or broken"),
    "a GIF cut off": (KINDS["GIF"][:60], "some.jpg"),
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("decode", [to_image, to_pixels])
def test_a_bad_file_is_an_error_with_its_name(decode, kind: str):
    content, message = BAD[kind]
    with pytest.raises(ValueError, match=f"^decode_image: expected .* got .*{message}"):
        decode(content, name="some.jpg")


def test_an_image_of_unreasonable_size_is_not_decoded(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)
    with pytest.raises(ValueError, match="expected an image of sane size, got some.jpg"):
        to_pixels(KINDS["JPEG"], name="some.jpg")
