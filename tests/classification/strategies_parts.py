"""What strategies_run.py makes its comparisons with: settings, models, the digits, a step loop."""

from collections.abc import Collection, Mapping
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor
from yacs.config import CfgNode

from classification.config import get_default_config
from classification.distributed import Ranks
from classification.strategies import Strategy, build_strategy
from internimage import InternImage, create_model

ZERO = {"TRAIN.STRATEGY": "deepspeed"}
KINDS: dict[str, dict[str, Any]] = {
    "ddp": {},
    "ddp_zero": {"TRAIN.OPTIMIZER.USE_ZERO": True},
    "fsdp": {"TRAIN.STRATEGY": "fsdp"},
    "zero1": ZERO,
    "zero2": ZERO | {"TRAIN.ZERO_STAGE": 2},
    "zero3": ZERO | {"TRAIN.ZERO_STAGE": 3},
}
OFFLOADED = {
    "fsdp": {"TRAIN.OFFLOAD_PARAM": "cpu"},
    "zero2": {"TRAIN.OFFLOAD_OPTIMIZER": "cpu"},
    "zero3": {"TRAIN.OFFLOAD_OPTIMIZER": "cpu", "TRAIN.OFFLOAD_PARAM": "cpu"},
}
FLOAT16 = {"AMP_OPT_LEVEL": "O1", "AMP_TYPE": "float16"}
TINY_RATE = {"TRAIN.BASE_LR": 5e-3}  # three steps are to change the losses
BATCH_SIZE = 8
NUM_STEPS = 20

State = dict[str, Any]


def make_config(settings: Mapping[str, Any]) -> CfgNode:
    config = get_default_config()
    settings = {"AMP_OPT_LEVEL": "O0", "DATA.BATCH_SIZE": BATCH_SIZE, **TINY_RATE, **settings}
    config.merge_from_list([part for setting in settings.items() for part in setting])
    return config


def tiny_model(stages: int = 2) -> InternImage:
    """Stages of one block each; batch norm in the head."""
    torch.manual_seed(0)
    depths, groups = (1,) * stages, (1, 2)[:stages]
    return InternImage(channels=16, depths=depths, groups=groups, num_classes=10, drop_path_rate=0)


def digits_model() -> InternImage:
    torch.manual_seed(0)
    return create_model("internimage_n", num_classes=10, drop_path_rate=0.0)


def digits(step: int, ranks: Ranks) -> tuple[Tensor, Tensor]:
    """This rank's images (N, 3, 32, 32) and labels (N,) of a step."""
    data = load_digits()
    size = BATCH_SIZE * ranks.world_size
    first = size * step + BATCH_SIZE * ranks.rank
    images = torch.from_numpy(data.images[first : first + BATCH_SIZE]).float() / 16
    images = F.interpolate(images[:, None].expand(-1, 3, -1, -1), size=(32, 32))
    return images, torch.from_numpy(data.target[first : first + BATCH_SIZE])


class Training:
    """A model under a strategy, step by step."""

    def __init__(self, settings: Mapping[str, Any], ranks: Ranks, model: InternImage) -> None:
        self.ranks = ranks
        self.strategy: Strategy = build_strategy(make_config(settings), model, ranks, factor=2.0)
        self.losses: list[float] = []  # mean of all ranks
        self.norms: list[float] = []
        self.step = 0

    def run(self, steps: int, *, parts: int = 1, loss_factor: float = 1.0) -> list[bool]:
        """Makes steps, each of ``parts`` batches; returns which were skipped."""
        skipped = []
        for _ in range(steps):
            images, labels = digits(self.step, self.ranks)
            total = torch.zeros(())
            chunks = list(zip(images.chunk(parts), labels.chunk(parts), strict=True))
            for index, (x, y) in enumerate(chunks):
                is_last = index == len(chunks) - 1
                with self.strategy.batch_of_step(is_last=is_last):
                    loss = F.cross_entropy(self.strategy.forward(x), y) / parts
                    self.strategy.backward(loss * loss_factor, is_last=is_last)
                total += loss.detach()
            if dist.is_initialized():
                dist.all_reduce(total)
            outcome = self.strategy.step(clip_grad=1.0)
            self.losses.append(total.item() / self.ranks.world_size)
            self.norms.append(outcome.gradient_norm)
            skipped.append(outcome.skipped)
            self.step += 1
        return skipped

    def state(self) -> State:
        """The whole state, on every rank; the buffers are this rank's own."""
        whole = [(self.strategy.model_state(), self.strategy.optimizer_state())]
        if dist.is_initialized():
            dist.broadcast_object_list(whole)
        buffers = {name: buffer.clone() for name, buffer in self.strategy.buffers()}
        model, optimizer = whole[0]
        return {"model": model, "optimizer": optimizer, "buffers": buffers, "step": self.step}

    def load(self, state: State) -> "Training":
        self.strategy.load_model_state(state["model"])
        self.strategy.load_optimizer_state(state["optimizer"])
        with torch.no_grad():
            for name, buffer in self.strategy.buffers():
                buffer.copy_(state["buffers"][name])
        self.step = state["step"]
        return self

    def end(self) -> None:
        self.strategy.close()


def tensors_of(state: State) -> dict[str, Tensor]:
    """All tensors of weights and optimiser, by name."""
    states = state["optimizer"]["optimizer"]
    of_optimizer = {f"{name} {key}": v for name in states for key, v in states[name].items()}
    return state["model"] | of_optimizer


def is_same(a: State, b: State, *, besides: Collection[str] = ()) -> bool:
    """Whether all tensors are the same bits, ``besides`` some keys."""
    a, b = tensors_of(a), tensors_of(b)
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a if k not in besides)
