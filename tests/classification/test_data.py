"""The digits, their split, the shares of the ranks, settings that do not fit, mixup."""

import hashlib
from collections import Counter

import numpy as np
import pytest
import torch

from classification.data import build_data, build_mixup
from classification.data.digits import Digits, split_indices
from classification.data.sampler import SHARDS_AT_A_TIME, TrainOrder, share_of
from classification.distributed import Ranks

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
    train, test = (Counter(half.labels.tolist()) for half in halves)
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


def test_training_without_augmentation_sees_the_test_images(make_config, halves):
    data = build_data(
        make_config("AUG.ROTATE", 0, "AUG.TRANSLATE", 0, "DATA.BATCH_SIZE", 1437),
        Ranks(0, 1, CPU),
    )
    (batch,) = data.train_loader.batches(0)
    small = torch.from_numpy(halves[0].pixels).permute(0, 3, 1, 2)
    assert torch.equal(batch.labels.bincount(), torch.from_numpy(np.bincount(halves[0].labels)))
    # Nothing is cropped or mirrored: the mean picture is that of the scans.
    mean = torch.nn.functional.interpolate(
        small.float().mean(0, keepdim=True), (16, 16), mode="bicubic", antialias=True
    )
    assert (batch.images.float().mean(0) - mean[0]).abs().max() < 8


@pytest.mark.parametrize("world_size", [1, 2, 7, 400])
def test_each_test_image_is_evaluated_by_exactly_one_rank(world_size: int):
    shares = [list(share_of(360, Ranks(rank, world_size, CPU))) for rank in range(world_size)]
    assert sorted(sum(shares, [])) == list(range(360))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


GROUPS = np.repeat(np.arange(100), 7)  # 700 images in 100 shards


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize(
    "options",
    [{}, {"keep_share": True}, {"groups": GROUPS}, {"groups": GROUPS, "keep_share": True}],
)
def test_ranks_share_the_training_images_anew_in_each_epoch(world_size: int, options):
    ranks = [Ranks(rank, world_size, CPU) for rank in range(world_size)]
    orders = [TrainOrder(700, rank, seed=3, **options) for rank in ranks]
    epochs = [[order.of_epoch(epoch).tolist() for order in orders] for epoch in range(3)]
    for shares in epochs:
        assert {len(share) for share in shares} == {700 // world_size} == {len(orders[0])}
        assert len(set(sum(shares, []))) == 700 // world_size * world_size  # no image twice
    assert epochs[0] != epochs[1] != epochs[2]
    assert orders[0].of_epoch(1).tolist() == epochs[1][0]
    if options.get("keep_share"):
        for rank, order in enumerate(orders):
            assert set(epochs[0][rank]) | set(epochs[1][rank]) <= set(order.share.tolist())
        # Neighbours in the data set are of one class: they must not meet in a step of all ranks.
        steps = np.array(epochs[0]).T
        assert world_size == 1 or (np.ptp(steps, axis=1) > world_size).mean() > 0.9


@pytest.mark.parametrize("options", [{}, {"keep_share": True}, {"groups": GROUPS}])
def test_neighbouring_seeds_and_epochs_have_orders_of_their_own(options):
    orders = [
        tuple(TrainOrder(700, Ranks(0, 2, CPU), seed=seed, **options).of_epoch(epoch))
        for seed in range(3)
        for epoch in range(3)
    ]
    assert len(set(orders)) == 9


def test_an_epoch_reads_from_a_few_shards_at_a_time():
    order = TrainOrder(700, Ranks(1, 2, CPU), seed=0, groups=GROUPS)
    shards = GROUPS[order.of_epoch(0)]
    window = SHARDS_AT_A_TIME * 7
    for start in range(0, len(shards) - window, 10):
        assert len(set(shards[start : start + window])) <= 2 * SHARDS_AT_A_TIME
    # Mixed nevertheless, and other shards are together in another epoch.
    assert (np.diff(shards) != 0).mean() > 0.8
    assert set(shards[:window]) != set(GROUPS[order.of_epoch(1)][:window])


@pytest.mark.parametrize(
    ("options", "world_size", "message"),
    [
        (["DATA.BATCH_SIZE", 719], 2, r"= 719, got 718 \(1437 images, ranks: 2\); low"),
        (["TRAIN.ACCUMULATION_STEPS", 12], 1, r"= 1536, got 1437 \(1437 images, ranks: 1\); low"),
        ([], 2000, r"got 0 \(1437 images, ranks: 2000\)"),
        (["DATA.DATASET", "digit"], 1, "one of .*, got 'digit'; did you mean digits?"),
        (
            ["DATA.IMG_ON_MEMORY", True, "DATA.CACHE_MODE", "no"],
            1,
            "expected DATA.CACHE_MODE part or full beside DATA.IMG_ON_MEMORY, got no",
        ),
        (
            ["DATA.CACHE_MODE", "full"],
            1,
            "expected DATA.IMG_ON_MEMORY or DATA.ZIP_MODE beside DATA.CACHE_MODE full, got neither",
        ),
    ],
)
def test_settings_that_do_not_fit_are_an_error(make_config, options, world_size, message):
    with pytest.raises(ValueError, match=message):
        build_data(make_config(*options), Ranks(0, world_size, CPU))


def test_evaluation_alone_needs_no_whole_training_step(make_config):
    config = make_config("DATA.BATCH_SIZE", 2000, "EVAL_MODE", True, "MODEL.RESUME", "x.pth")
    data = build_data(config, Ranks(0, 1, CPU))
    assert len(data.train_loader) == 0 and not list(data.train_loader.batches(0))
    assert sum(len(batch.labels) for batch in data.test_loader) == 360


def test_an_epoch_has_no_batches_of_a_step_that_is_not_made(make_config):
    config = make_config("DATA.BATCH_SIZE", 100, "TRAIN.ACCUMULATION_STEPS", 4, "DATA.IMG_SIZE", 8)
    loader = build_data(config, Ranks(0, 1, CPU)).train_loader
    assert len(loader) == 12  # of 14 whole batches
    assert len(list(loader.batches(0, first=8))) == 4


def test_mixup_gives_soft_labels_and_needs_pairs(make_config):
    assert build_mixup(make_config(), num_classes=10) is None
    mixup = build_mixup(make_config("AUG.MIXUP", 1.0), num_classes=10)
    images, targets = mixup(torch.rand(4, 3, 8, 8), torch.arange(4))
    assert targets.shape == (4, 10)
    assert torch.allclose(targets.sum(dim=1), torch.ones(4))
    with pytest.raises(ValueError, match="expected an even DATA.BATCH_SIZE .*, got 5"):
        build_mixup(make_config("AUG.CUTMIX", 1.0, "DATA.BATCH_SIZE", 5), num_classes=10)
