"""From pixels to the batch: augmentation as timm's, preparation as predicting does it."""

import random
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform
from yacs.config import CfgNode

from classification.config import get_default_config
from classification.data.colours import allow_no_bits, build_colours
from classification.data.decode import to_image, to_pixels
from classification.data.digits import Digits
from classification.data.source import Kind
from classification.data.transforms import (
    build_finish_test,
    build_finish_train,
    build_preprocessing,
    build_test_transform,
    build_train_transform,
    seed_image,
)
from internimage.image import preprocess
from tests.classification.image_files import encode, picture

SIZE = 32
PLAIN = {"AUTO_AUGMENT": "none", "COLOR_JITTER": 0.0, "HFLIP": 0.0, "CROP_SCALE": (1.0, 1.0)}


def config_with(aug: dict[str, object], **data: object) -> CfgNode:
    config = get_default_config()
    config.DATA.update({"IMG_SIZE": SIZE} | data)
    config.AUG.update(aug)
    return config


def pixels_of(image: Image.Image) -> torch.Tensor:
    return to_pixels(encode(image, "PNG"), name="x")


def augmented(config: CfgNode, image: Image.Image, seed: int, kind: Kind = "photos") -> np.ndarray:
    transform = build_train_transform(config, kind=kind)
    seed_image(seed)
    result = transform(pixels_of(image))
    assert result.dtype == torch.uint8 and result.is_contiguous()
    return result.numpy()


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize(("width", "height"), [(200, 150), (20, 500), (9, 7)])
def test_the_crop_is_timms_with_the_same_random_numbers(interpolation, width: int, height: int):
    aug = PLAIN | {"CROP_SCALE": (0.3, 1.0), "HFLIP": 0.5}
    config = config_with(aug, INTERPOLATION=interpolation)
    theirs = create_transform(
        SIZE,
        is_training=True,
        use_prefetcher=True,
        scale=(0.3, 1.0),
        color_jitter=None,
        interpolation=interpolation,
    )
    errors = []
    for seed in range(20):
        image = picture(seed, (width, height))
        seed_image(seed)
        expected = theirs(image).permute(1, 2, 0).numpy().astype(int)
        errors.append(np.abs(augmented(config, image, seed) - expected))
    assert np.max(errors) <= (2 if interpolation in ("bilinear", "bicubic") else 0)
    assert np.mean(errors) < 0.1


@pytest.mark.parametrize("policy", ["rand-m9-mstd0.5-inc1", "original", "3a", "augmix-m3-w2"])
def test_a_policy_is_timms_with_the_same_random_numbers(policy: str):
    config = config_with(PLAIN | {"AUTO_AUGMENT": policy, "COLOR_JITTER": 0.4})
    theirs = create_transform(
        SIZE,
        is_training=True,
        use_prefetcher=True,
        scale=(1.0, 1.0),
        ratio=(1.0, 1.0),
        hflip=0.0,
        color_jitter=0.4,
        auto_augment=policy,
        interpolation="bicubic",
    )
    theirs.transforms = theirs.transforms[1:]  # without the crop
    for step in theirs.transforms:
        allow_no_bits(step)
    steps = build_colours(config)
    image = picture(0, (SIZE, SIZE))
    changed = 0
    for seed in range(30):
        seed_image(seed)
        expected = theirs(image).permute(1, 2, 0).numpy()
        seed_image(seed)
        ours = image
        for step in steps:
            ours = step(ours)
        assert np.array_equal(np.asarray(ours), expected)
        changed += not np.array_equal(expected, np.asarray(image))
    assert changed > 10


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_every_filter_goes_with_every_operation_of_a_policy(interpolation: str):
    config = config_with({"AUTO_AUGMENT": "rand-m9-mstd2-n6-inc1"}, INTERPOLATION=interpolation)
    results = [augmented(config, picture(seed), seed) for seed in range(40)]
    assert {result.shape for result in results} == {(SIZE, SIZE, 3)}


@pytest.mark.parametrize("num_bits", [0, 1, 4, 8])
def test_posterizing_keeps_that_many_bits(num_bits: int):
    (step,) = build_colours(config_with({}))
    op = next(op for op in step.ops if op.name.startswith("Posterize"))
    image = picture(0)
    kept = np.asarray(image) & (0xFF << (8 - num_bits) & 0xFF)
    assert np.array_equal(np.asarray(op.aug_fn(image, num_bits)), kept)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (2, 3)])
def test_images_of_a_few_pixels_are_cropped_as_well(size: tuple[int, int]):
    config = config_with(PLAIN | {"CROP_SCALE": (0.01, 0.2)})
    for seed in range(20):
        assert augmented(config, picture(0, size), seed).shape == (SIZE, SIZE, 3)


@pytest.mark.parametrize("kind", ["photos", "digits"])
@pytest.mark.parametrize(
    ("key", "value"), [("ROTATE", 20), ("TRANSLATE", 0.2), ("SCALE", 0.3), ("SHEAR", 20)]
)
def test_each_affine_setting_changes_photos_and_digits(kind: Kind, key: str, value: float):
    aug = PLAIN if kind == "photos" else {}
    image = Digits(train=True).images[0]
    without = augmented(config_with(aug), image, 0, kind)
    first, second = (augmented(config_with(aug | {key: value}), image, s, kind) for s in (0, 1))
    assert not np.array_equal(first, without)
    assert not np.array_equal(first, second)


@pytest.mark.parametrize(("key", "value"), [("HFLIP", 1.0), ("COLOR_JITTER", 0.9)])
def test_each_further_setting_changes_photos(key: str, value: float):
    without = augmented(config_with(PLAIN), picture(0, (SIZE, SIZE)), 0)
    changed = augmented(config_with(PLAIN | {key: value}), picture(0, (SIZE, SIZE)), 0)
    assert not np.array_equal(changed, without)
    if key == "HFLIP":
        assert np.array_equal(changed, without[:, ::-1])


def test_what_a_turn_leaves_open_has_the_mean_colour():
    config = config_with(PLAIN | {"ROTATE": 180.0, "MEAN": (1.0, 0.5, 0.0)})
    corners = np.concatenate(
        [augmented(config, Image.new("RGB", (64, 64)), seed)[0, :1] for seed in range(9)]
    )
    assert [255, 128, 0] in corners.tolist()


@pytest.mark.parametrize(
    ("aug", "kind", "message"),
    [
        ({"HFLIP": 0.0}, "digits", "AUG.HFLIP has no effect on digits"),
        ({"CROP_SCALE": (0.5, 1.0)}, "digits", "AUG.CROP_SCALE has no effect on digits"),
        ({"AUTO_AUGMENT": "none"}, "digits", "AUG.AUTO_AUGMENT has no effect on digits"),
        ({"COLOR_JITTER": 0.2}, "photos", "AUG.COLOR_JITTER has no effect beside AUG.AUTO_AUGMENT"),
    ],
)
def test_a_setting_without_effect_warns(aug, kind: Kind, message: str):
    with pytest.warns(UserWarning, match=message):
        build_train_transform(config_with(aug), kind=kind)


@pytest.mark.parametrize("kind", ["photos", "digits"])
def test_the_default_settings_warn_of_nothing(kind: Kind):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build_train_transform(config_with({}), kind=kind)


@pytest.mark.parametrize("policy", ["rnd-m9", "rand-x9", "originally"])
def test_a_policy_that_timm_does_not_know_is_an_error(policy: str):
    with pytest.raises(ValueError, match="expected AUG.AUTO_AUGMENT none or one of timm's"):
        build_train_transform(config_with({"AUTO_AUGMENT": policy}), kind="photos")


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_testing_prepares_an_image_as_predicting_does(interpolation: str):
    config = config_with({}, INTERPOLATION=interpolation)
    file = encode(picture(0, (81, 50)))
    image = to_image(file, name="x")
    batch = build_test_transform(config)(image).permute(2, 0, 1)[None]
    expected = preprocess(image, build_preprocessing(config))
    assert torch.equal(build_finish_test(config)(batch)[0], expected)
    # And preprocess is what its definition says, in float32.
    mean, std = np.float32(config.AUG.MEAN), np.float32(config.AUG.STD)
    by_hand = (batch[0].permute(1, 2, 0).numpy().astype(np.float32) / 255 - mean) / std
    assert np.array_equal(expected.permute(1, 2, 0).numpy(), by_hand)


def test_without_crop_the_whole_image_is_squeezed_into_a_square():
    config = config_with({})
    config.TEST.CROP = False
    image = picture(0, (81, 50))
    expected = np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BICUBIC))
    assert np.array_equal(build_test_transform(config)(image).numpy(), expected)


def test_a_random_crop_of_test_images_is_decided_by_the_seed():
    config = config_with({"RANDOM_RESIZED_CROP": True, "CROP_SCALE": (0.2, 0.5)})
    config.TEST.CROP = False
    transform, image = build_test_transform(config), picture(0, (81, 50))
    results = []
    for seed in (0, 0, 1):
        seed_image(seed)
        results.append(transform(image).numpy())
    assert np.array_equal(results[0], results[1])
    assert not np.array_equal(results[0], results[2])


@pytest.mark.parametrize("mode", ["const", "rand", "pixel"])
def test_finishing_training_images_erases_rectangles_of_them(mode: str):
    config = config_with({"REPROB": 1.0, "REMODE": mode, "RECOUNT": 2})
    pixels = torch.randint(0, 256, (4, SIZE, SIZE, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    before = pixels.clone()
    seed_image(0)
    finished = build_finish_train(config)(pixels)
    assert finished.shape == (4, 3, SIZE, SIZE) and finished.is_contiguous()
    assert torch.equal(pixels, before)
    changed = (finished != build_finish_test(config)(pixels)).any(dim=1).flatten(1).sum(dim=1)
    assert (changed > 0).all() and (changed < SIZE**2 / 2).all()
    config.AUG.REPROB = 0.0
    assert torch.equal(build_finish_train(config)(pixels), build_finish_test(config)(pixels))


def test_images_of_other_seeds_epochs_and_indices_draw_other_numbers():
    drawn = set()
    for numbers in [(s, e, i) for s in range(3) for e in range(-1, 3) for i in range(10)]:
        seed_image(*numbers)
        drawn.add((random.random(), np.random.random(), torch.rand(1).item()))
        seed_image(*numbers)
        drawn.add((random.random(), np.random.random(), torch.rand(1).item()))
    assert len(drawn) == 3 * 4 * 10
    assert all(len({numbers[place] for numbers in drawn}) == len(drawn) for place in range(3))
