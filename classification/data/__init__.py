"""Data of a run: the two data sets, their loaders and the mixing of batches."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from timm.data import Mixup
from torch.utils.data import DataLoader, DistributedSampler, Sampler
from yacs.config import CfgNode

from classification.config import nearest_hint
from classification.data.digits import Digits
from classification.data.transforms import build_transform
from classification.distributed import Ranks

# Name in DATA.DATASET -> class with `class_names`, made by cls(train=, transform=).
DATASETS = {"digits": Digits}


@dataclass(frozen=True)
class Data:
    """Training and test images of a run, as one rank sees them.

    Args:
        class_names: The name of each class.
        num_train_images: Training images of all ranks together.
        num_test_images: Test images of all ranks together.
        train_sampler: Decides on the order; ``set_epoch`` gives each epoch one of its own.
        train_loader: This rank's training batches. The last, smaller batch is left out, so that
            all ranks make equally many steps.
        test_loader: This rank's test batches, in a fixed order.
    """

    class_names: tuple[str, ...]
    num_train_images: int
    num_test_images: int
    train_sampler: DistributedSampler
    train_loader: DataLoader
    test_loader: DataLoader


class EvalSampler(Sampler[int]):
    """Every world_size-th image, so that each image is evaluated once, by one rank.

    DistributedSampler would repeat images until all ranks have equally many, and count them twice.

    Args:
        num_images: The size of the data set.
        ranks: This process among all.
    """

    def __init__(self, num_images: int, ranks: Ranks) -> None:
        self.indices = range(ranks.rank, num_images, ranks.world_size)

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)


def build_data(config: CfgNode, ranks: Ranks) -> Data:
    """Builds the data sets and loaders of DATA.DATASET.

    Raises:
        ValueError: No data set has that name, or a rank's share is smaller than one step.
    """
    train_set = build_dataset(config, train=True)
    test_set = build_dataset(config, train=False)
    train_sampler: DistributedSampler = DistributedSampler(
        train_set,
        num_replicas=ranks.world_size,
        rank=ranks.rank,
        shuffle=True,
        seed=config.SEED,
        drop_last=True,
    )
    images_a_step = config.DATA.BATCH_SIZE * config.TRAIN.ACCUMULATION_STEPS
    if len(train_sampler) < images_a_step:
        raise ValueError(
            "build_data: expected training images of a rank >= DATA.BATCH_SIZE * "
            f"TRAIN.ACCUMULATION_STEPS = {images_a_step}, got {len(train_sampler)} "
            f"({len(train_set)} images on {ranks.world_size} ranks)"
        )
    common = {
        "batch_size": config.DATA.BATCH_SIZE,
        "num_workers": config.DATA.NUM_WORKERS,
        "pin_memory": config.DATA.PIN_MEMORY and ranks.device.type == "cuda",
    }
    return Data(
        class_names=train_set.class_names,
        num_train_images=len(train_set),
        num_test_images=len(test_set),
        train_sampler=train_sampler,
        train_loader=DataLoader(train_set, sampler=train_sampler, drop_last=True, **common),
        test_loader=DataLoader(test_set, sampler=EvalSampler(len(test_set), ranks), **common),
    )


def build_dataset(config: CfgNode, *, train: bool) -> Any:
    """Builds the training or the test half of DATA.DATASET.

    Raises:
        ValueError: No data set has that name.
    """
    name = config.DATA.DATASET
    if name not in DATASETS:
        raise ValueError(
            f"build_dataset: expected DATA.DATASET one of {sorted(DATASETS)}, got {name!r}"
            f"{nearest_hint(name, list(DATASETS))}"
        )
    return DATASETS[name](train=train, transform=build_transform(config, train=train))


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
