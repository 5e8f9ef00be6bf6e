"""What the strategies do with a few steps of the digits; one rank of a run, or a run of its own.

torchrun --nproc_per_node 2 strategies_run.py FOLDER      leaves FOLDER/2_ranks.pt
python strategies_run.py FOLDER                           takes that up, leaves FOLDER/1_rank.pt

Each function's result is compared with what it should be in test_strategies.py.
"""

import sys
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor
from yacs.config import CfgNode

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from classification.config import get_default_config
from classification.distributed import Ranks, end_ranks, start_ranks
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


def losses_and_bytes(ranks: Ranks) -> dict[str, Any]:
    """The first steps of the digits' model under every strategy."""
    found = {}
    for kind, settings in KINDS.items():
        training = Training({**settings, "TRAIN.BASE_LR": 5e-4}, ranks, digits_model())
        training.run(NUM_STEPS)
        found[kind] = {
            "losses": training.losses,
            "norms": training.norms,
            "bytes": training.strategy.bytes_held(),
        }
        training.end()
    return found


def states(ranks: Ranks) -> dict[str, Any]:
    """Saves after three steps; the same and the next strategy go on from there."""
    found: dict[str, Any] = {}
    names = list(KINDS)
    for kind, next_kind in zip(names, names[1:] + names[:1], strict=True):
        training = Training(KINDS[kind], ranks, tiny_model())
        training.run(3)
        saved = training.state()
        training.run(3)
        again = Training(KINDS[kind], ranks, tiny_model()).load(saved)
        is_kept = is_same(again.state(), saved)
        again.run(3)
        other = Training(KINDS[next_kind], ranks, tiny_model()).load(saved)
        is_taken_over = is_same(other.state(), saved)
        other.run(3)
        found[kind] = {
            "saved": saved,
            "is_kept": is_kept,
            "is_taken_over": is_taken_over,
            "is_the_same_after_3_steps": is_same(again.state(), training.state()),
            "losses": training.losses[3:],
            "losses_of_other": other.losses,
        }
        for ended in (training, again, other):
            ended.end()
    return found


def variants(ranks: Ranks) -> dict[str, Any]:
    """Three steps with settings that must not change the losses, and with 16 bits."""
    found: dict[str, Any] = {}
    for kind, settings in KINDS.items():
        cases = {
            "plain": {},
            "checkpointed": {"TRAIN.USE_CHECKPOINT": True},
            "channels_last": {"TRAIN.CHANNELS_LAST": True},
            "offloaded": OFFLOADED.get(kind, {}),
            "bfloat16": FLOAT16 | {"AMP_TYPE": "bfloat16"},
            "float16": FLOAT16,
            "sgd": {"TRAIN.OPTIMIZER.NAME": "sgd"},
        }
        for case, extra in cases.items():
            with warnings.catch_warnings(record=True) as caught:
                model = tiny_model()
                model.set_grad_checkpointing(case == "checkpointed")
                training = Training({**settings, **extra}, ranks, model)
                training.run(3)
            found[kind, case] = {
                "losses": training.losses,
                "warnings": [str(warning.message) for warning in caught],
            }
            training.end()
    return found


def accumulation(ranks: Ranks) -> dict[str, Any]:
    """A step of one batch and of its two halves; batch norm in evaluation mode sees no batch."""
    found = {}
    for kind, settings in KINDS.items():
        for parts in (1, 2):
            model = tiny_model()
            extra = {"TRAIN.ACCUMULATION_STEPS": parts, "DATA.BATCH_SIZE": BATCH_SIZE // parts}
            training = Training({**settings, **extra}, ranks, model)
            model.eval()
            training.run(2, parts=parts)
            found[kind, parts] = {"losses": training.losses, "norms": training.norms}
            training.end()
    return found


def overflows(ranks: Ranks) -> dict[str, Any]:
    """A step whose float16 gradient overflows, with and without scaling, and the next one."""
    found = {}
    for kind, settings in KINDS.items():
        for scales in (True, False):
            extra = FLOAT16 | {"TRAIN.GRAD_SCALER": scales}
            training = Training({**settings, **extra}, ranks, tiny_model())
            training.run(1)
            before = training.state()
            skipped = training.run(1, loss_factor=1e30)
            after = training.state()
            skipped += training.run(1)
            found[kind, scales] = {
                "skipped": skipped,
                "norm": training.norms[1],
                "is_as_before": is_same(before, after, besides=before["buffers"]),
                "scales": [state["optimizer"]["scaler"].get("scale") for state in (before, after)],
                "next_norm": training.norms[2],
            }
            training.end()
    return found


@torch.no_grad()
def exchanges(ranks: Ranks) -> dict[str, Any]:
    """Halves all weights in place and puts them back: what forward and the state see of it."""
    found = {}
    images, _ = digits(50, ranks)
    for kind, settings in KINDS.items():
        training = Training(settings, ranks, tiny_model())
        with torch.enable_grad():
            training.run(2)
        strategy = training.strategy
        strategy.model.eval()
        own = [tensor.clone() for tensor in strategy.tensors_to_average()]
        logits = [strategy.forward(images).clone()]
        whole = training.state()["model"]
        for tensor in strategy.tensors_to_average():
            tensor.mul_(0.5)
        logits.append(strategy.forward(images).clone())
        halved = training.state()["model"]
        for tensor, value in zip(strategy.tensors_to_average(), own, strict=True):
            tensor.copy_(value)
        logits.append(strategy.forward(images).clone())
        floats = [key for key in whole if whole[key].is_floating_point()]
        found[kind] = {
            "is_changed": not torch.allclose(logits[0], logits[1]),
            "is_back": torch.equal(logits[0], logits[2]),
            "is_halved": all(torch.equal(halved[key], whole[key] / 2) for key in floats),
            "num_floats": len(floats),
        }
        training.end()
    return found


def frozen_stages(ranks: Ranks) -> dict[str, Any]:
    found = {}
    for kind, settings in KINDS.items():
        extra = {"TRAIN.OPTIMIZER.FREEZE_BACKBONE": (0,)}
        training = Training({**settings, **extra}, ranks, tiny_model())
        before = training.state()["model"]
        training.run(2)
        state = training.state()
        found[kind] = {
            "changed": [k for k in before if not torch.equal(before[k], state["model"][k])],
            "with_state": list(state["optimizer"]["optimizer"]),
        }
        training.end()
    return found


def without_launcher(folder: Path, ranks: Ranks) -> dict[str, Any]:
    """One process takes up what two have saved, and trains on."""
    saved = torch.load(folder / "2_ranks.pt", weights_only=True)["states"]
    found = {}
    for kind, settings in KINDS.items():
        state = saved[kind]["saved"]
        training = Training(settings, ranks, tiny_model()).load(state)
        is_kept = is_same(training.state(), state)
        training.run(2)
        found[kind] = {"is_kept": is_kept, "losses": training.losses}
        training.end()
    return found


def compiled(ranks: Ranks) -> dict[str, Any]:
    """Three steps and an evaluation, compiled and not."""
    found = {}
    images, _ = digits(50, ranks)
    for kind in ("ddp", "fsdp", "zero1", "zero3"):
        for compiles in (False, True):
            # Slow steps: AdamW makes the last bits of a gradient near 0 into whole steps.
            extra = {"TRAIN.COMPILE": compiles, "TRAIN.BASE_LR": 5e-5}
            training = Training({**KINDS[kind], **extra}, ranks, tiny_model(stages=1))
            training.run(3)
            training.strategy.model.eval()
            with torch.no_grad():
                logits = training.strategy.forward(images)
            keys = list(training.strategy.model_state())
            found[kind, compiles] = {"losses": training.losses, "logits": logits, "keys": keys}
            training.end()
    return found


def main(folder: Path, names: list[str]) -> None:
    """Runs the functions named, or all for this number of ranks, and saves what they found."""
    torch.set_num_threads(1)
    ranks = start_ranks()
    if names:
        found = {name: globals()[name](ranks) for name in names}
    elif dist.is_initialized():
        functions = (losses_and_bytes, states, variants, accumulation, overflows, exchanges)
        found = {function.__name__: function(ranks) for function in (*functions, frozen_stages)}
    else:
        found = {"without_launcher": without_launcher(folder, ranks)}
    if ranks.is_main:
        name = "_".join(names) or f"{ranks.world_size}_rank{'s' * (ranks.world_size > 1)}"
        torch.save(found, folder / f"{name}.pt")
    end_ranks()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
