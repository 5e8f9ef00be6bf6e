"""What the strategies do with a few steps of the digits; one rank of a run, or a run of its own.

torchrun --nproc_per_node 2 strategies_run.py FOLDER      leaves FOLDER/2_ranks.pt
python strategies_run.py FOLDER                           takes that up, leaves FOLDER/1_rank.pt

Each function's result is compared with what it should be in test_strategies.py.
"""

import copy
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from classification.data.batch import Batch, Data
from classification.distributed import Ranks, end_ranks, on_first_rank, start_ranks, sum_over_ranks
from classification.engine import Engine
from classification.results import StepResult
from internimage import InternImage
from tests.classification.strategies_parts import (
    BATCH_SIZE,
    FLOAT16,
    KINDS,
    NUM_STEPS,
    OFFLOADED,
    State,
    Training,
    digits,
    digits_model,
    is_same,
    make_config,
    tiny_model,
)


class DigitsLoader:
    """Batches of the digits in one order; see ``TrainLoader``."""

    def __init__(self, num_batches: int, ranks: Ranks) -> None:
        self.num_batches, self.ranks = num_batches, ranks

    def __len__(self) -> int:
        return self.num_batches

    def batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        for step in range(first, len(self)):
            yield Batch(*digits(step, self.ranks))


def erase(images: Tensor) -> Tensor:
    """Stands in for random erasing: draws from PyTorch's random state."""
    return images * (torch.rand_like(images) > 0.1)


def make_engine(
    settings: Mapping[str, Any], ranks: Ranks, model: InternImage, *, steps: int, erases: bool
) -> Engine:
    """The engine that trains a run, on the digits."""
    whole = {"MODEL.LABEL_SMOOTHING": 0.0, "TRAIN.CLIP_GRAD": 1.0, "DATA.IMG_SIZE": 32}
    whole |= {"AUG.MIXUP": 0.0, "AUG.CUTMIX": 0.0, "TRAIN.WARMUP_EPOCHS": 0, "TRAIN.EPOCHS": 2}
    data = Data(
        class_names=tuple("0123456789"),
        num_train_images=steps * BATCH_SIZE * ranks.world_size,
        num_test_images=0,
        train_loader=DigitsLoader(steps, ranks),
        test_loader=[],
        finish_train=erase if erases else lambda images: images,
        finish_test=lambda images: images,
    )
    return Engine(make_config(whole | settings), model, data, ranks)


def losses_and_bytes(ranks: Ranks) -> dict[str, Any]:
    """The first steps of the digits' model under every strategy, as a run makes them."""
    found = {}
    for kind, settings in KINDS.items():
        extra = {"TRAIN.BASE_LR": 1.6e-2}  # for 512 images: 5e-4 for the 16 of a step
        model = digits_model()
        engine = make_engine(settings | extra, ranks, model, steps=NUM_STEPS, erases=False)
        made: list[StepResult] = []
        engine.train_epoch(on_step=made.append)
        losses = sum_over_ranks(torch.tensor([result.loss for result in made])) / ranks.world_size
        found[kind] = {
            "losses": losses.tolist(),
            "norms": [result.gradient_norm for result in made],
            "bytes": engine.strategy.bytes_held(),
        }
        engine.strategy.close()
    return found


def is_same_engine(a: State, b: State) -> bool:
    """Whether two states of the engine are the same bits: weights, optimiser, loss scale."""
    a, b = ({"model": s["model"], "optimizer": s, "scaler": s["scaler"]} for s in (a, b))
    return is_same(a, b) and a["scaler"] == b["scaler"]


def interruptions(ranks: Ranks) -> dict[str, Any]:
    """The engine's state within an epoch; another engine ends the epoch from it.

    With random numbers in every part, an average and float16's loss scale.
    """
    extra = FLOAT16 | {"TRAIN.EMA.ENABLE": True, "TRAIN.EMA.DECAY": 0.5}
    extra |= {"AUG.MIXUP": 0.8, "AUG.CUTMIX": 1.0}
    found = {}
    for kind, settings in KINDS.items():

        def engine(settings: Mapping[str, Any] = settings) -> Engine:
            model = InternImage(
                channels=16, depths=(1, 1), groups=(1, 2), num_classes=10, drop_path_rate=0.3
            )
            return make_engine(settings | extra, ranks, model, steps=5, erases=True)

        middle: dict[str, Any] = {}

        def keep(result: StepResult, of: Engine, middle: dict[str, Any] = middle) -> None:
            if result.step == 2:
                state = of.state_dict()  # collective
                middle.update(copy.deepcopy(on_first_rank(ranks, lambda: state)))

        torch.manual_seed(0)
        unbroken = engine()
        sums = [unbroken.train_epoch(on_step=lambda result, of=unbroken: keep(result, of))]
        torch.manual_seed(1)  # all that matters is in the state
        resumed = engine()
        resumed.load_state_dict(middle)
        sums.append(resumed.train_epoch())
        ends = []
        for each in (unbroken, resumed):
            each.end_epoch()
            ends.append((each.state_dict(), each.final_state()))
        (state, final), (resumed_state, resumed_final) = ends
        found[kind] = {
            "step_in_epoch": middle["step_in_epoch"],
            "has_moved": ranks.is_main and not is_same_engine(middle, state),
            "is_same": ranks.is_main and is_same_engine(state, resumed_state),
            "is_same_average": all(torch.equal(final[k], resumed_final[k]) for k in final),
            "num_final": len(final),
            "losses": [result.train_loss for result in sums],
        }
        for each in (unbroken, resumed):
            each.strategy.close()
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
        functions = (
            losses_and_bytes,
            interruptions,
            states,
            variants,
            accumulation,
            overflows,
            exchanges,
        )
        found = {function.__name__: function(ranks) for function in (*functions, frozen_stages)}
    else:
        found = {"without_launcher": without_launcher(folder, ranks)}
    if ranks.is_main:
        name = "_".join(names) or f"{ranks.world_size}_rank{'s' * (ranks.world_size > 1)}"
        torch.save(found, folder / f"{name}.pt")
    end_ranks()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
