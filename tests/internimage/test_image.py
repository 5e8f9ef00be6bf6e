"""Images of every kind become what a viewer would show; broken files become errors."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from internimage.image import (
    decode_image,
    load_image,
    normalize,
    preprocess,
    resize_and_crop,
    upright_size,
)
from internimage.metadata import Preprocessing

GRADIENT = np.arange(12 * 8 * 3, dtype=np.uint8).reshape(12, 8, 3)  # 8 wide, 12 high


def save(image: Image.Image, path, **options):
    image.save(path, **options)
    return path


def pixels(path) -> np.ndarray:
    image = load_image(path)
    assert image.mode == "RGB"
    return np.asarray(image)


def test_rgb_is_unchanged(tmp_path):
    path = save(Image.fromarray(GRADIENT), tmp_path / "a.png")
    np.testing.assert_array_equal(pixels(path), GRADIENT)


def test_one_pixel_is_an_image(tmp_path):
    path = save(Image.new("RGB", (1, 1), (10, 20, 30)), tmp_path / "a.png")
    x = preprocess(load_image(path), Preprocessing(image_size=32, mean=(0, 0, 0), std=(1, 1, 1)))
    assert x.shape == (3, 32, 32)
    torch.testing.assert_close(x[:, 7, 9], torch.tensor([10.0, 20.0, 30.0]) / 255)


@pytest.mark.parametrize("mode", ["L", "1", "P", "YCbCr", "CMYK", "LA", "RGBA", "HSV", "LAB"])
def test_every_mode_of_pillow_ends_as_the_same_grey(mode, tmp_path):
    grey = Image.new("RGB", (8, 12), (255, 255, 255))
    suffix = "tif" if mode in ("YCbCr", "CMYK", "LAB") else "png"
    image = grey.convert("L").convert(mode) if mode == "LA" else None
    if mode == "LAB":
        image = Image.merge("LAB", [Image.new("L", (8, 12), v) for v in (255, 128, 128)])
    image = image or (grey if mode == "HSV" else grey.convert(mode))
    values = pixels(save(image, tmp_path / f"a.{suffix}"))
    assert values.shape == (12, 8, 3)
    assert values.min() >= 253


def test_cmyk_jpegs_keep_their_colour(tmp_path):
    cyan_paper = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    values = pixels(save(cyan_paper, tmp_path / "a.jpg", quality=95))
    assert values[..., 0].max() < 40
    assert values[..., 1:].min() > 200


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_greys_are_scaled_and_not_clipped(suffix, tmp_path):
    values = np.array([[0, 257, 25700], [32896, 65278, 65535]], dtype=np.uint16)
    path = save(Image.fromarray(values), tmp_path / f"a.{suffix}")
    expected = np.array([[0, 1, 100], [128, 254, 255]], dtype=np.uint8)
    np.testing.assert_array_equal(pixels(path), expected[..., None].repeat(3, axis=2))


def test_transparency_is_laid_on_white(tmp_path):
    image = np.zeros((1, 3, 4), dtype=np.uint8)
    image[0, :, 0] = 200
    image[0, :, 3] = (0, 255, 51)
    values = pixels(save(Image.fromarray(image), tmp_path / "a.png"))
    np.testing.assert_array_equal(values[0], [[255, 255, 255], [200, 0, 0], [244, 204, 204]])


def test_a_transparent_palette_colour_is_laid_on_white(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    path = save(image, tmp_path / "a.png", transparency=0)
    np.testing.assert_array_equal(pixels(path)[0], [[255, 255, 255], [0, 0, 255]])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_turned_upright(orientation, tmp_path):
    # What each EXIF orientation says of the stored pixels, undone here with numpy.
    upright = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
        8: np.rot90,
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(Image.fromarray(GRADIENT), tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(pixels(path), upright[orientation](GRADIENT))


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_of_an_animation_the_first_frame_is_taken(suffix, tmp_path):
    red, blue = (Image.new("RGB", (4, 4), colour) for colour in ("red", "blue"))
    path = tmp_path / f"a.{suffix}"
    lossless = {"lossless": True} if suffix == "webp" else {}
    red.save(path, save_all=True, append_images=[blue, blue], duration=50, **lossless)
    np.testing.assert_array_equal(pixels(path)[0, 0], [255, 0, 0])


def test_truncated_images_are_refused(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    for suffix in ("jpg", "png", "gif", "webp", "tif", "bmp"):
        path = save(Image.fromarray(noise), tmp_path / f"a.{suffix}")
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(ValueError, match=f"expected an? .*image.*, got .*a.{suffix}"):
            load_image(path)


@pytest.mark.parametrize(
    "error",
    [RuntimeError, struct.error, zlib.error, OverflowError, KeyError, ZeroDivisionError, TypeError],
)
def test_whatever_a_plugin_of_pillow_raises_is_a_broken_image(error, tmp_path, monkeypatch):
    path = save(Image.new("RGB", (4, 4)), tmp_path / "a.png")

    def fail(_: Image.Image) -> None:
        raise error("bad block")

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", fail)
    with pytest.raises(ValueError, match=rf"a.png, truncated or broken \({error.__name__}: .*bad"):
        load_image(path)


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "webp", "tif", "bmp", "tga", "pcx", "ico"])
@pytest.mark.filterwarnings("ignore")
def test_images_with_flipped_bytes_are_read_or_refused(suffix, tmp_path):
    generator = np.random.default_rng(0)
    noise = generator.integers(0, 255, (20, 20, 3), dtype=np.uint8)
    path = save(Image.fromarray(noise), tmp_path / f"a.{suffix}")
    whole = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    read = 0
    for _ in range(60):
        changed = whole.copy()
        places = generator.integers(0, min(len(whole), 200), 4)
        changed[places] = generator.integers(0, 256, 4)
        path.write_bytes(changed.tobytes())
        try:
            read += load_image(path).mode == "RGB"
        except ValueError as error:
            assert str(error).startswith("load_image: expected ")  # noqa: PT017
    assert read < 60


# What a file holds, and what the error must say.
NO_IMAGES = {
    "empty": (b"", "empty file"),
    "text": (b"just a text", "none that Pillow can read"),
    "jpeg start": (b"\xff\xd8\xff", "load_image: expected"),
    "png start": (b"\x89PNG\r\n\x1a\n", "load_image: expected"),
}


@pytest.mark.parametrize("kind", NO_IMAGES)
def test_files_that_are_no_image_are_refused(kind, tmp_path):
    content, message = NO_IMAGES[kind]
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_image(path)


def test_folders_missing_files_and_floats_are_refused(tmp_path):
    with pytest.raises(ValueError, match="got the folder"):
        load_image(tmp_path)
    with pytest.raises(FileNotFoundError, match="expected an existing image file"):
        load_image(tmp_path / "nothing.png")
    path = save(Image.new("F", (4, 4), 0.5), tmp_path / "a.tif")
    with pytest.raises(ValueError, match="got .*a.tif .to_rgb: .* image of floats") as caught:
        load_image(path)
    assert "truncated" not in str(caught.value)


def test_gigantic_images_are_refused_before_they_are_decoded(tmp_path):
    path = save(Image.new("1", (20_000, 20_000)), tmp_path / "a.png")
    with pytest.raises(ValueError, match="image of sane size"):
        load_image(path)


@pytest.mark.parametrize("size", [(80, 60), (60, 80), (33, 200), (7, 5), (224, 224)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("crop_ratio", [1.0, 0.875])
def test_resize_and_crop_are_torchvisions(size, interpolation, crop_ratio):
    transforms = pytest.importorskip("torchvision.transforms.v2")
    values = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(values)
    settings = Preprocessing(image_size=56, interpolation=interpolation, crop_ratio=crop_ratio)
    reference = transforms.Compose(
        [
            transforms.Resize(round(56 / crop_ratio), transforms.InterpolationMode(interpolation)),
            transforms.CenterCrop(56),
            transforms.ToImage(),
            transforms.ToDtype(torch.float32, scale=True),
            transforms.Normalize(settings.mean, settings.std),
        ]
    )
    expected = reference(image)
    torch.testing.assert_close(
        preprocess(image, settings), torch.as_tensor(expected), rtol=0, atol=1e-5
    )


def test_the_size_before_the_crop_is_torchvisions_for_all_sizes(monkeypatch):
    functional = pytest.importorskip("torchvision.transforms.functional")
    sizes = [(long, short) for short in range(1, 60, 3) for long in range(short, 8 * short, 5)]
    sizes += [(short, long) for long, short in sizes]
    expected = [functional.resize(Image.new("RGB", size), 32).size for size in sizes]
    resized = []

    def resize(self, size, _):
        resized.append(size)
        return Image.new("RGB", size)

    monkeypatch.setattr(Image.Image, "resize", resize)
    settings = Preprocessing(image_size=28, crop_ratio=0.875)
    for size in sizes:
        preprocess(Image.new("RGB", size), settings)
    assert resized == expected


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1), (3, 100_000)])
def test_needles_are_cropped_before_they_are_enlarged(size):
    image = Image.new("RGB", size, (255, 0, 0))
    x = preprocess(image, Preprocessing(image_size=64, mean=(0, 0, 0), std=(1, 1, 1)))
    assert x.shape == (3, 64, 64)
    assert x[0].min() == 1
    assert x[1:].max() == 0


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif"])
def test_the_bytes_of_a_file_are_decoded_as_the_file_is(suffix, tmp_path):
    path = tmp_path / f"image.{suffix}"
    Image.linear_gradient("L").resize((31, 17)).save(path)
    expected = np.asarray(load_image(path))
    assert np.array_equal(np.asarray(decode_image(path.read_bytes(), name="x")), expected)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected an image file, got the empty file a.jpg"),
        (b"text", "got a.jpg, which is none that Pillow can read"),
    ],
)
def test_bytes_that_are_no_image_are_refused_by_name(content, message):
    with pytest.raises(ValueError, match=f"^decode_image: .*{message}"):
        decode_image(content, name="a.jpg")


def test_preprocessing_is_resizing_cropping_and_normalising_of_a_batch():
    images = [Image.linear_gradient("L").convert("RGB").resize((40 + i, 50)) for i in range(3)]
    settings = Preprocessing(image_size=24, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    cropped = np.stack([np.asarray(resize_and_crop(image, settings)) for image in images])
    assert cropped.shape == (3, 24, 24, 3) and cropped.dtype == np.uint8
    batch = torch.from_numpy(cropped).permute(0, 3, 1, 2)
    x = normalize(batch, settings.mean, settings.std)
    assert x.is_contiguous() and x.dtype == torch.float32
    assert torch.equal(x, torch.stack([preprocess(image, settings) for image in images]))
    by_hand = (cropped.astype(np.float32) / 255 - np.float32(settings.mean)) / np.float32(
        settings.std
    )
    assert np.array_equal(x.permute(0, 2, 3, 1).numpy(), by_hand)
    assert np.array_equal(cropped, batch.permute(0, 2, 3, 1).numpy())  # the argument is as it was


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_the_upright_size_is_that_of_the_decoded_image_and_needs_the_header_alone(suffix, tmp_path):
    noise = Image.effect_noise((64, 48), 60)
    exif = noise.getexif()
    for orientation, size in ((1, (64, 48)), (6, (48, 64))):
        exif[274] = orientation
        path = save(noise, tmp_path / f"{orientation}.{suffix}", exif=exif)
        assert upright_size(path) == size == load_image(path).size
    path = save(noise, tmp_path / f"plain.{suffix}")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert upright_size(path) == (64, 48)
    with pytest.raises(ValueError, match="truncated"):
        load_image(path)


def test_the_size_of_what_is_no_image_is_an_error(tmp_path):
    (tmp_path / "a.png").write_text("<html>")
    with pytest.raises(ValueError, match="expected an image, got"):
        upright_size(tmp_path / "a.png")
