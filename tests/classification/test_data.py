"""The digits, their split, the transforms, the shares of the ranks."""

import hashlib
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from classification.data import EvalSampler, build_data, build_mixup
from classification.data.digits import Digits, split_indices
from classification.data.transforms import build_preprocessing, build_transform
from classification.distributed import Ranks
from internimage.image import preprocess

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def halves() -> tuple[Digits, Digits]:
    return Digits(train=True), Digits(train=False)


def test_the_split_has_1437_training_and_360_test_images(halves):
    train, test = halves
    assert (len(train), len(test)) == (1437, 360)


def test_no_test_image_is_among_the_training_images(halves):
    train, test = halves
    assert sorted([*train.indices, *test.indices]) == list(range(1797))
    # By content as well: the same scan twice in the data would be a leak.
    contents = [{image.tobytes() for image in half.images} for half in halves]
    assert not contents[0] & contents[1]


def test_each_digit_has_its_share_of_the_test_images(halves):
    train, test = (Counter(half.labels) for half in halves)
    assert set(test) == set(range(10))
    for digit, count in test.items():
        assert abs(count - 0.2 * (count + train[digit])) < 1, digit


def test_the_split_is_the_same_everywhere_and_always(halves):
    digest = hashlib.sha256(np.asarray(halves[1].indices, dtype="<i8").tobytes()).hexdigest()
    assert digest[:16] == "2fbaae31b8c6aad1"
    labels = np.repeat(np.arange(10), 180)
    assert all(map(np.array_equal, split_indices(labels), split_indices(labels)))


def test_paper_is_black_and_ink_is_white_in_three_equal_colours(halves):
    pixels = np.stack([np.asarray(image) for image in halves[0].images])
    assert pixels.shape[1:] == (8, 8, 3)
    assert (pixels.min(), pixels.max()) == (0, 255)
    assert (pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 0] == pixels[..., 2]).all()


def test_testing_prepares_an_image_as_predicting_does(make_config, halves, tmp_path):
    config = make_config()
    image = halves[1].images[0]
    image.save(tmp_path / "digit.png")
    expected = preprocess(Image.open(tmp_path / "digit.png"), build_preprocessing(config))
    assert torch.equal(build_transform(config, train=False)(image), expected)


def test_training_without_augmentation_sees_the_test_image(make_config, halves):
    config = make_config("AUG.ROTATE", 0, "AUG.TRANSLATE", 0)
    image = halves[0].images[0]
    train, test = (build_transform(config, train=train)(image) for train in (True, False))
    assert torch.allclose(train, test, atol=1e-6)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ROTATE", 20),
        ("TRANSLATE", 0.2),
        ("SCALE", 0.3),
        ("SHEAR", 20),
        ("REPROB", 1),
    ],
)
def test_each_augmentation_changes_the_image(make_config, halves, key: str, value: float):
    config = make_config("AUG.ROTATE", 0, "AUG.TRANSLATE", 0, f"AUG.{key}", value)
    transform, image = build_transform(config, train=True), halves[0].images[0]
    torch.manual_seed(0)
    first, second = transform(image), transform(image)
    assert first.shape == (3, 16, 16)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("world_size", [1, 2, 7, 400])
def test_each_test_image_is_evaluated_by_exactly_one_rank(world_size: int):
    shares = [list(EvalSampler(360, Ranks(rank, world_size, CPU))) for rank in range(world_size)]
    assert sorted(sum(shares, [])) == list(range(360))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_ranks_share_the_training_images_anew_in_each_epoch(make_config):
    ranks = [Ranks(rank, 2, CPU) for rank in range(2)]
    samplers = [build_data(make_config(), rank).train_sampler for rank in ranks]

    def orders(epoch: int) -> list[list[int]]:
        for sampler in samplers:
            sampler.set_epoch(epoch)
        return [list(sampler) for sampler in samplers]

    first, second = orders(0), orders(1)
    assert len(first[0]) == len(first[1]) == 718
    assert not set(first[0]) & set(first[1])
    assert first != second
    assert orders(0) == first


@pytest.mark.parametrize(
    ("options", "world_size", "message"),
    [
        (["DATA.BATCH_SIZE", 719], 2, r"= 719, got 718 \(1437 images on 2 ranks\)"),
        (["TRAIN.ACCUMULATION_STEPS", 12], 1, r"= 1536, got 1437 \(1437 images on 1 ranks\)"),
        ([], 2000, r"got 0 \(1437 images on 2000 ranks\)"),
        (["DATA.DATASET", "digit"], 1, "one of .*, got 'digit'; did you mean digits?"),
    ],
)
def test_a_run_that_does_not_fit_the_data_is_an_error(make_config, options, world_size, message):
    with pytest.raises(ValueError, match=message):
        build_data(make_config(*options), Ranks(0, world_size, CPU))


def test_mixup_gives_soft_labels_and_needs_pairs(make_config):
    assert build_mixup(make_config(), num_classes=10) is None
    mixup = build_mixup(make_config("AUG.MIXUP", 1.0), num_classes=10)
    images, targets = mixup(torch.rand(4, 3, 8, 8), torch.arange(4))
    assert targets.shape == (4, 10)
    assert torch.allclose(targets.sum(dim=1), torch.ones(4))
    with pytest.raises(ValueError, match="expected an even DATA.BATCH_SIZE .*, got 5"):
        build_mixup(make_config("AUG.CUTMIX", 1.0, "DATA.BATCH_SIZE", 5), num_classes=10)
