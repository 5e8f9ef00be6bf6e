"""Data of a run: the two halves of a data set, their loaders and the mixing of batches."""

import warnings
from collections.abc import Callable
from datetime import timedelta

import numpy as np
import torch.distributed as dist
from timm.data import Mixup
from yacs.config import CfgNode

from classification.data.batch import Batch, Data
from classification.data.cache import CachedSource
from classification.data.cifar import build_cifar10, build_cifar100
from classification.data.digits import build_digits
from classification.data.imagenet import build_imagenet, build_imagenet22k
from classification.data.inat import build_inat18
from classification.data.loader import OrderedLoader, ShuffledLoader
from classification.data.places import build_places205, build_places365
from classification.data.sampler import TrainOrder, share_of
from classification.data.source import ArraySource, ImageSets, Source
from classification.data.storage import open_storage
from classification.data.transforms import (
    build_finish_test,
    build_finish_train,
    build_test_transform,
    build_train_transform,
)
from classification.distributed import Ranks, on_first_rank
from internimage.script import nearest_hint

__all__ = ["DATASETS", "Batch", "Data", "build_data", "build_mixup", "build_sets"]

LONGEST_SEARCH = timedelta(hours=12)
"""So long may one rank look through a storage, say the headers of ten million images in shards."""

# Name in DATA.DATASET -> builder of both halves.
DATASETS: dict[str, Callable[[CfgNode], ImageSets]] = {
    "cifar10": build_cifar10,
    "cifar100": build_cifar100,
    "digits": build_digits,
    "folder": open_storage,
    "imagenet": build_imagenet,
    "imagenet22k": build_imagenet22k,
    "inat18": build_inat18,
    "places205": build_places205,
    "places365": build_places365,
}


def build_data(config: CfgNode, ranks: Ranks) -> Data:
    """Builds the data sets and loaders of DATA.DATASET.

    Raises:
        ValueError: No data set has that name, nothing of it is at DATA.DATA_PATH, settings
            contradict each other, or a rank's share is smaller than one step.
    """
    keep = _keeps_in_memory(config)
    sets = _build_on_first_rank(config, ranks)
    if len(sets.class_names) == 1 and ranks.is_main:
        warnings.warn(
            f"the only class is {sets.class_names[0]}: there is nothing to tell it from",
            stacklevel=2,
        )
    order = TrainOrder(
        len(sets.train),
        ranks,
        seed=config.SEED,
        groups=sets.train.groups,
        keep_share=keep == "part",
    )
    images_a_step = config.DATA.BATCH_SIZE * config.TRAIN.ACCUMULATION_STEPS
    only_tests = config.EVAL_MODE or config.THROUGHPUT_MODE
    if len(order) < images_a_step and not only_tests:
        raise ValueError(
            "build_data: expected training images of a rank >= DATA.BATCH_SIZE * "
            f"TRAIN.ACCUMULATION_STEPS = {images_a_step}, got {len(order)} ({len(sets.train)} "
            f"images, ranks: {ranks.world_size}); lower --batch-size or --accumulation-steps"
        )
    train, test = sets.train, sets.test
    all_of_test = range(len(test))
    share = all_of_test if config.TEST.SEQUENTIAL else share_of(len(test), ranks)
    if keep != "no" and not only_tests:  # which look at an image once: memory would save nothing
        train = _cached(train, order.share if keep == "part" else np.arange(len(train)), ranks)
        test = _cached(test, np.asarray(share), ranks)  # the same in each evaluation
    pin_memory = config.DATA.PIN_MEMORY and ranks.device.type == "cuda"
    return Data(
        class_names=sets.class_names,
        num_train_images=len(train),
        num_test_images=len(test),
        train_loader=ShuffledLoader(
            train,
            build_train_transform(config, kind=sets.kind),
            order,
            size=config.DATA.IMG_SIZE,
            seed=config.SEED,
            batch_size=config.DATA.BATCH_SIZE,
            batches_a_step=config.TRAIN.ACCUMULATION_STEPS,
            num_workers=config.DATA.NUM_WORKERS,
            pin_memory=pin_memory,
        ),
        test_loader=OrderedLoader(
            test,
            build_test_transform(config),
            share,
            size=config.DATA.IMG_SIZE,
            seed=config.SEED,
            batch_size=config.DATA.BATCH_SIZE,
            num_workers=config.DATA.NUM_WORKERS,
            pin_memory=pin_memory,
        ),
        finish_train=build_finish_train(config),
        finish_test=build_finish_test(config),
        test_is_shared=not config.TEST.SEQUENTIAL,
    )


def build_sets(config: CfgNode) -> ImageSets:
    """Builds both halves of DATA.DATASET.

    Raises:
        ValueError: No data set has that name, or nothing of it is at DATA.DATA_PATH.
    """
    name = config.DATA.DATASET
    if name not in DATASETS:
        raise ValueError(
            f"build_data: expected DATA.DATASET one of {sorted(DATASETS)}, got {name!r}"
            f"{nearest_hint(name, list(DATASETS))}"
        )
    return DATASETS[name](config)


def _build_on_first_rank(config: CfgNode, ranks: Ranks) -> ImageSets:
    """Lets one rank look through the storage and tell the others what is where.

    All at once they would be a load on a cluster's storage. Every rank reads from the same paths.
    """
    if not dist.is_initialized():
        return build_sets(config)
    # The others wait by another way than NCCL, which takes 10 minutes for a sign of death.
    waiting = dist.new_group(backend="gloo", timeout=LONGEST_SEARCH)

    def build() -> ImageSets:
        try:
            return build_sets(config)
        finally:
            dist.barrier(waiting)

    if not ranks.is_main:
        dist.barrier(waiting)
    return on_first_rank(ranks, build)


def build_mixup(config: CfgNode, *, num_classes: int) -> Mixup | None:
    """Builds timm's mixup and cutmix of a batch, or returns None where both are off.

    Raises:
        ValueError: The batch cannot be split into pairs.
    """
    aug = config.AUG
    if aug.MIXUP == 0 and aug.CUTMIX == 0 and aug.CUTMIX_MINMAX is None:
        return None
    if config.DATA.BATCH_SIZE % 2:
        raise ValueError(
            "build_mixup: expected an even DATA.BATCH_SIZE beside AUG.MIXUP or AUG.CUTMIX, "
            f"got {config.DATA.BATCH_SIZE}"
        )
    return Mixup(
        mixup_alpha=aug.MIXUP,
        cutmix_alpha=aug.CUTMIX,
        cutmix_minmax=aug.CUTMIX_MINMAX,
        prob=aug.MIXUP_PROB,
        switch_prob=aug.MIXUP_SWITCH_PROB,
        mode=aug.MIXUP_MODE,
        label_smoothing=config.MODEL.LABEL_SMOOTHING,
        num_classes=num_classes,
    )


def _keeps_in_memory(config: CfgNode) -> str:
    """Returns which files are kept in memory: no, part or full.

    Raises:
        ValueError: The settings contradict each other.
    """
    data, mode = config.DATA, config.DATA.CACHE_MODE
    if data.IMG_ON_MEMORY and mode == "no":
        raise ValueError(
            "build_data: expected DATA.CACHE_MODE part or full beside DATA.IMG_ON_MEMORY, got no"
        )
    if mode == "full" and not (data.IMG_ON_MEMORY or data.ZIP_MODE):
        raise ValueError(
            "build_data: expected DATA.IMG_ON_MEMORY or DATA.ZIP_MODE beside DATA.CACHE_MODE full, "
            "got neither"
        )
    return mode if data.IMG_ON_MEMORY or data.ZIP_MODE else "no"


def _cached(source: Source, indices: np.ndarray, ranks: Ranks) -> Source:
    if isinstance(source, ArraySource):
        return source  # is in memory
    return CachedSource(source, indices, show_progress=ranks.is_main)
