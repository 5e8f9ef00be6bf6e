"""Images become inputs as the models' own pipelines make them, or one error says why not."""

from __future__ import annotations

import mmcv
import numpy as np
import pytest
from PIL import Image

from internimage.image import preprocess
from internimage.metadata import Preprocessing
from internimage.runtime.inputs import feeds, prepare
from tests.internimage.runtime.runner_metadata import make_metadata

MEAN, STD = np.array([120.0, 110.0, 100.0], np.float32), np.array([60.0, 50.0, 40.0], np.float32)


def random_image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("crop_ratio", [1.0, 0.875])
@pytest.mark.parametrize("size", [(90, 60), (60, 90), (32, 32), (5, 300)])
def test_a_classifiers_input_is_that_of_the_predictor(size, crop_ratio):
    own = Preprocessing(image_size=32, crop_ratio=crop_ratio, interpolation="bicubic")
    metadata = make_metadata(
        task="classification",
        input_size=[32, 32],
        mean=[255 * value for value in own.mean],
        std=[255 * value for value in own.std],
        resize=dict(mode="crop", shorter_side=round(32 / crop_ratio), size=[32, 32])
        | dict(filter="bicubic"),
    )
    image = random_image(*size)
    found = prepare(image, metadata)
    expected = preprocess(Image.fromarray(image), own).numpy()
    np.testing.assert_allclose(found.pixels, expected, rtol=0, atol=2e-6)
    assert found.original == size


def test_the_middle_of_a_size_that_is_no_square_is_cut_out():
    resize = dict(mode="crop", shorter_side=48, size=[32, 48], filter="bilinear")
    metadata = make_metadata(task="classification", resize=resize)
    assert prepare(random_image(200, 100), metadata).pixels.shape == (3, 32, 48)


@pytest.mark.parametrize("size", [(90, 60), (60, 90), (31, 64), (7, 200)])
@pytest.mark.parametrize("multiple_of", [None, 32])
def test_a_dense_models_input_is_that_of_mmcvs_pipeline(size, multiple_of):
    metadata = make_metadata(resize={"multiple_of": multiple_of})
    image = random_image(*size)
    expected = mmcv.imrescale(image, (64, 32))
    if multiple_of is not None:
        expected = mmcv.imresize_to_multiple(expected, 32, scale_factor=1)
    found = prepare(image, metadata)
    assert np.array_equal(found.pixels, ((expected - MEAN) / STD).transpose(2, 0, 1))
    assert found.size == expected.shape[:2]


def test_without_a_scale_an_image_keeps_its_size():
    found = prepare(random_image(33, 47), make_metadata(resize={"scale": None}))
    assert found.pixels.shape == (3, 33, 47)


@pytest.mark.parametrize(
    ("padding", "shape"),
    [
        ({"pad_divisor": 32}, (32, 64)),
        ({"pad_to": [40, 64]}, (40, 64)),
        ({"pad_to": [None, 64]}, (32, 64)),
    ],
)
def test_padding_comes_after_normalising_on_the_right_and_below(padding, shape):
    image = random_image(45, 70)
    plain = prepare(image, make_metadata()).pixels
    found = prepare(image, make_metadata(resize=padding | {"pad_value": 7}))
    assert found.size == plain.shape[1:] == (32, 50)
    assert found.pixels.shape[1:] == shape
    assert np.array_equal(found.pixels[:, :32, :50], plain)
    assert (found.pixels[:, 32:] == 7).all() and (found.pixels[:, :, 50:] == 7).all()


def test_an_exact_size_may_be_padded_as_well():
    resize = dict(mode="exact", size=[20, 30], pad_divisor=16, scale=None)
    found = prepare(random_image(9, 9), make_metadata(resize=resize))
    assert (found.size, found.pixels.shape) == ((20, 30), (3, 32, 32))


def test_an_image_of_the_other_shape_is_made_to_fit_a_fixed_input():
    metadata = make_metadata(input_size=[32, 64], resize={"pad_to": [32, 64]})
    found = prepare(random_image(90, 60), metadata)
    assert found.size == (32, 21)
    assert found.pixels.shape == (3, 32, 64)


def test_an_image_that_becomes_another_size_than_the_models_is_one_error():
    metadata = make_metadata(input_size=[32, None])
    prepare(random_image(32, 64), metadata)
    with pytest.raises(
        ValueError, match=r"becomes 32xany .* got one of 90x60, which becomes 48x32"
    ):
        prepare(random_image(90, 60), make_metadata(input_size=[32, None]))


def test_a_file_of_several_images_a_run_gets_this_one_several_times():
    pixels = np.arange(3 * 4 * 5, dtype=np.float32).reshape(3, 4, 5)
    found = feeds(pixels, make_metadata(task="detection", batch=2), (3, 4))
    assert found["input"].shape == (2, 3, 4, 5)
    assert np.array_equal(found["input"][1], pixels)
    assert found["image_size"].tolist() == [[3, 4], [3, 4]]
    assert found["image_size"].dtype == np.int64
    assert list(feeds(pixels, make_metadata(batch=None), (3, 4))) == ["input"]
