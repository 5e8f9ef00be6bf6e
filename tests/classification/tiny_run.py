"""A net, images and an engine of a few hundred numbers; as a script, one rank of a run of torchrun.

torchrun --nproc_per_node 2 tiny_run.py FOLDER      leaves FOLDER/rank_0.pt and rank_1.pt
"""

import copy
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DistributedSampler, TensorDataset
from yacs.config import CfgNode

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from classification.config import get_default_config
from classification.data.batch import Batch, Data
from classification.distributed import Ranks, end_ranks, on_first_rank, start_ranks
from classification.engine import Engine
from classification.results import StepResult

NUM_CLASSES = 3
NUM_TRAIN, NUM_TEST = 48, 13  # 13 is no multiple of 2


class TinyNet(nn.Module):
    """A convolution, batch norm where wanted, a linear layer; attributes as InternImage has."""

    depths = (1,)
    num_classes = NUM_CLASSES

    def __init__(self, *, batch_norm: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4) if batch_norm else nn.Identity()
        self.head = nn.Linear(4, NUM_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.conv(x)).relu().mean(dim=(2, 3)))


def tiny_config(**train: object) -> CfgNode:
    config = get_default_config()
    config.DATA.BATCH_SIZE = 8
    config.MODEL.LABEL_SMOOTHING = 0.1
    config.AUG.MIXUP = config.AUG.CUTMIX = 0.0
    config.TRAIN.update({"EPOCHS": 4, "WARMUP_EPOCHS": 0, "BASE_LR": 1.0, "CLIP_GRAD": 0.0})
    config.TRAIN.OPTIMIZER.NAME = "sgd"
    config.TRAIN.update(train)
    config.AMP_OPT_LEVEL = "O0"
    return config


def tiny_images(count: int, seed: int) -> TensorDataset:
    """Images whose class is the brightest of their three colours."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % NUM_CLASSES
    images = torch.randn(count, 3, 6, 6, generator=generator)
    images[torch.arange(count), labels] += 1.0
    return TensorDataset(images, labels)


class TinyLoader:
    """Training batches in an order that the epoch decides on; see ``TrainLoader``."""

    def __init__(self, images: TensorDataset, batch_size: int, ranks: Ranks, seed: int) -> None:
        self.images, self.batch_size = images, batch_size
        self.sampler: DistributedSampler = DistributedSampler(
            images, ranks.world_size, ranks.rank, seed=seed, drop_last=True
        )

    def __len__(self) -> int:
        return len(self.sampler) // self.batch_size

    def batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        self.sampler.set_epoch(epoch)
        indices = torch.tensor(list(self.sampler))
        for index in range(first, len(self)):
            chosen = indices[index * self.batch_size : (index + 1) * self.batch_size]
            yield Batch(*(tensor[chosen] for tensor in self.images.tensors))


def tiny_data(config: CfgNode, ranks: Ranks) -> Data:
    train_set, test_set = tiny_images(NUM_TRAIN, seed=1), tiny_images(NUM_TEST, seed=2)
    share = range(ranks.rank, NUM_TEST, ranks.world_size)
    test_batches = [share[i : i + 4] for i in range(0, len(share), 4)]
    return Data(
        class_names=("red", "green", "blue"),
        num_train_images=NUM_TRAIN,
        num_test_images=NUM_TEST,
        train_loader=TinyLoader(train_set, config.DATA.BATCH_SIZE, ranks, config.SEED),
        test_loader=[Batch(*(t[list(b)] for t in test_set.tensors)) for b in test_batches],
        finish_train=lambda images: images,
        finish_test=lambda images: images,
    )


def jitter(images: Tensor) -> Tensor:
    """Stands in for random erasing: draws from PyTorch's random state."""
    return images + 1e-3 * torch.rand(())


def tiny_engine(config: CfgNode, ranks: Ranks, *, batch_norm: bool) -> Engine:
    torch.manual_seed(0)
    model = TinyNet(batch_norm=batch_norm)
    data = tiny_data(config, ranks)
    if batch_norm:
        data = replace(data, finish_train=jitter)
    return Engine(config, model, data, ranks)


def keep_middle(engine: Engine, middle: dict, result: StepResult) -> None:
    """Takes the state after the first step of the second epoch."""
    if (engine.epoch, engine.step_in_epoch) == (1, 1):
        middle.update(copy.deepcopy(engine.state_dict()))


def main(folder: Path) -> None:
    """Trains two engines as one rank and saves what the test compares."""
    torch.set_num_threads(1)
    ranks = start_ranks()
    left: dict[str, object] = {}
    for name, batch_norm in (("plain", False), ("batch_norm", True)):
        config = tiny_config(EMA=CfgNode({"ENABLE": batch_norm, "DECAY": 0.5}))
        engine = tiny_engine(config, ranks, batch_norm=batch_norm)
        losses, middle = [], {}
        for _ in range(2):
            losses.append(engine.train_epoch(on_step=partial(keep_middle, engine, middle)))
            engine.end_epoch()
            scores = engine.evaluate()
            engine.next_epoch()
        resumed = tiny_engine(config, ranks, batch_norm=batch_norm)
        resumed.load_state_dict(on_first_rank(ranks, middle.copy))
        resumed_loss = resumed.train_epoch().train_loss
        resumed.end_epoch()
        with engine.final_weights():
            final = {key: value.clone() for key, value in engine.model.state_dict().items()}
        with resumed.final_weights():
            resumed_final = {k: v.clone() for k, v in resumed.model.state_dict().items()}
        left[name] = {
            "model": engine.model.state_dict(),
            "final": final,
            "state": engine.final_state(),
            "losses": [result.train_loss for result in losses],
            "scores": [scores.loss, scores.top1, scores.top5, scores.num_images],
            "resumed_loss": resumed_loss,
            "resumed_model": resumed.model.state_dict(),
            "resumed_final": resumed_final,
        }
    engine.strategy.close()
    resumed.strategy.close()
    del engine, resumed  # the process group must outlive them
    torch.save(left, folder / f"rank_{ranks.rank}.pt")
    end_ranks()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
