"""A net, images and an engine of a few hundred numbers; as a script, one rank of a run of torchrun.

torchrun --nproc_per_node 2 tiny_run.py FOLDER      leaves FOLDER/rank_0.pt and rank_1.pt
"""

import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset
from yacs.config import CfgNode

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from classification.config import get_default_config
from classification.data import Data, EvalSampler
from classification.distributed import Ranks, end_ranks, start_ranks
from classification.engine import Engine

NUM_CLASSES = 3
NUM_TRAIN, NUM_TEST = 48, 13  # 13 is no multiple of 2


class TinyNet(nn.Module):
    """A convolution, batch norm where wanted, a linear layer; ``depths`` as InternImage has."""

    depths = (1,)

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
    return config


def tiny_images(count: int, seed: int) -> TensorDataset:
    """Images whose class is the brightest of their three colours."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % NUM_CLASSES
    images = torch.randn(count, 3, 6, 6, generator=generator)
    images[torch.arange(count), labels] += 1.0
    return TensorDataset(images, labels)


def tiny_data(config: CfgNode, ranks: Ranks) -> Data:
    train_set, test_set = tiny_images(NUM_TRAIN, seed=1), tiny_images(NUM_TEST, seed=2)
    sampler = DistributedSampler(
        train_set, ranks.world_size, ranks.rank, seed=config.SEED, drop_last=True
    )
    batch_size = config.DATA.BATCH_SIZE
    return Data(
        class_names=("red", "green", "blue"),
        num_train_images=NUM_TRAIN,
        num_test_images=NUM_TEST,
        train_sampler=sampler,
        train_loader=DataLoader(train_set, batch_size, sampler=sampler, drop_last=True),
        test_loader=DataLoader(test_set, 4, sampler=EvalSampler(NUM_TEST, ranks)),
    )


def tiny_engine(config: CfgNode, ranks: Ranks, *, batch_norm: bool) -> Engine:
    torch.manual_seed(0)
    model = TinyNet(batch_norm=batch_norm)
    return Engine(config, model, tiny_data(config, ranks), ranks)


def main(folder: Path) -> None:
    """Trains two engines as one rank and saves what the test compares."""
    torch.set_num_threads(1)
    ranks = start_ranks()
    left: dict[str, object] = {}
    for name, batch_norm in (("plain", False), ("batch_norm", True)):
        config = tiny_config(EMA=CfgNode({"ENABLE": batch_norm, "DECAY": 0.5}))
        engine = tiny_engine(config, ranks, batch_norm=batch_norm)
        results = [engine.train_epoch(epoch) for epoch in range(2)]
        scores = engine.evaluate()
        left[name] = {
            "model": engine.model.state_dict(),
            "final": engine.final_model.state_dict(),
            "losses": [result.train_loss for result in results],
            "scores": [scores.loss, scores.top1, scores.top5, scores.num_images],
        }
    del engine  # the process group must outlive it
    torch.save(left, folder / f"rank_{ranks.rank}.pt")
    end_ranks()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
