r"""What the engine and the records of a run cost, beside a bare PyTorch loop.

    .venv/bin/python classification/benchmarks/bench_step.py

All train the same model on the same batches in memory, on one rank in float32. The bare loop is
forward, loss, backward, clipping, AdamW. ``engine`` adds the schedule, the checks, the sums;
``run`` adds to that the average of the weights, the progress bar, the log, the event file and one
checkpoint a turn. Contenders take turns; a ratio is the median over the turns of the CPU time of
one over that of the other in the same turn. CPU time leaves out what else the machine does, and
waiting for the disk; the wall-clock time stands beside it.
"""

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
import torch.nn.functional as F
from yacs.config import CfgNode

from classification.config import get_default_config
from classification.data.batch import Batch, Data
from classification.distributed import Ranks
from classification.engine import Engine
from classification.models import build_model
from classification.optim import build_optimizer
from classification.runs.logs import close_log, open_log
from classification.runs.progress import Progress
from classification.runs.run import Run
from classification.runs.trackers import open_tracker

NUM_CLASSES = 10


class InMemory:
    """A few batches, over and over; a ``TrainLoader``."""

    def __init__(self, batches: Sequence[Batch], num_steps: int) -> None:
        self.of_step = [batches[i % len(batches)] for i in range(num_steps)]

    def __len__(self) -> int:
        """Returns the number of batches of a turn."""
        return len(self.of_step)

    def batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Returns the batches of a turn."""
        return iter(self.of_step[first:])


def settings(args: argparse.Namespace, folder: Path, name: str, *, average: bool) -> CfgNode:
    """Returns settings for turns of ``args.steps`` steps each."""
    config = get_default_config()
    config.OUTPUT, config.MODEL.NAME, config.MODEL.ARCH = str(folder), name, args.model
    config.AMP_OPT_LEVEL = "O0"
    config.DATA.BATCH_SIZE, config.DATA.IMG_SIZE = args.batch, args.size
    config.DATA.DATASET = "digits"
    config.AUG.MIXUP = config.AUG.CUTMIX = 0.0
    config.TRAIN.EPOCHS, config.TRAIN.WARMUP_EPOCHS = args.turns + 1, 0
    config.TRAIN.EMA.ENABLE = average
    return config


def make_data(args: argparse.Namespace) -> Data:
    """Returns random images, float32 already: what is left is the training itself."""
    generator = torch.Generator().manual_seed(0)
    batches = [
        Batch(
            torch.randn(args.batch, 3, args.size, args.size, generator=generator),
            torch.randint(NUM_CLASSES, (args.batch,), generator=generator),
        )
        for _ in range(4)
    ]
    return Data(
        class_names=tuple("0123456789"),
        num_train_images=args.batch * args.steps,
        num_test_images=args.batch,
        train_loader=InMemory(batches, args.steps),
        test_loader=batches[:1],
        finish_train=lambda images: images,
        finish_test=lambda images: images,
    )


def bare_turn(config: CfgNode, data: Data) -> Callable[[int], None]:
    """Returns one turn of the loop that everybody writes first."""
    torch.manual_seed(0)
    model = build_model(config, num_classes=NUM_CLASSES)
    optimizer = build_optimizer(config, model, factor=1.0)

    def turn(index: int) -> None:
        model.train()
        for images, labels, *_ in data.train_loader.batches(index):
            loss = F.cross_entropy(model(images), labels, label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.TRAIN.CLIP_GRAD)
            optimizer.step()

    return turn


def engine_turn(config: CfgNode, data: Data, ranks: Ranks) -> Callable[[int], None]:
    """Returns one epoch of the engine alone."""
    torch.manual_seed(0)
    engine = Engine(config, build_model(config, num_classes=NUM_CLASSES), data, ranks)

    def turn(index: int) -> None:
        engine.train_epoch()
        engine.end_epoch()
        engine.next_epoch()

    return turn


def run_turn(config: CfgNode, data: Data, ranks: Ranks) -> Callable[[int], None]:
    """Returns one epoch with all that a run records, without evaluation."""
    torch.manual_seed(0)
    engine = Engine(config, build_model(config, num_classes=NUM_CLASSES), data, ranks)
    run = Run(config, ranks, data, engine)
    run.folder.mkdir(parents=True)
    run.tracker = open_tracker(config, run.folder, first_step=0)
    open_log(run.folder, ranks)
    num_steps = config.TRAIN.EPOCHS * engine.steps_per_epoch
    progress = Progress(num_steps, first_step=0, update_every=config.PRINT_FREQ, ranks=ranks)

    def turn(index: int) -> None:
        with progress:
            engine.train_epoch(on_step=lambda result: run._after_step(progress, result))
            run._save(f"ckpt_epoch_{index + 1}.pth")
            engine.end_epoch()
            engine.next_epoch()

    return turn


def measure(
    turns: dict[str, Callable[[int], None]], count: int
) -> dict[str, list[tuple[float, float]]]:
    """Returns CPU and wall-clock seconds of each contender's turns, behind one to warm up."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in turns}
    for index in range(count + 1):
        for name, turn in turns.items():
            cpu, wall = time.process_time(), time.perf_counter()
            turn(index)
            if index:
                seconds[name].append((time.process_time() - cpu, time.perf_counter() - wall))
    return seconds


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description="What engine and records cost.")
    parser.add_argument("--model", default="internimage_n", help="a name of list_models()")
    parser.add_argument("--size", type=int, default=96, help="side of the images, pixels")
    parser.add_argument("--batch", type=int, default=32, help="images a step")
    parser.add_argument("--steps", type=int, default=60, help="steps a turn")
    parser.add_argument("--turns", type=int, default=9, help="turns of each contender")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch")
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    ranks = Ranks(0, 1, torch.device("cpu"))
    data = make_data(args)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seconds = measure(
            {
                "bare": bare_turn(settings(args, folder, "bare", average=False), data),
                "engine": engine_turn(settings(args, folder, "e", average=False), data, ranks),
                "run": run_turn(settings(args, folder, "run", average=True), data, ranks),
            },
            args.turns,
        )
        close_log()
    print(
        f"{args.model}, {args.batch} images of {args.size}x{args.size}, {args.steps} steps a turn, "
        f"{args.turns} turns, {args.threads} thread(s); PyTorch {torch.__version__}, "
        f"Python {platform.python_version()}, {os.cpu_count()} x {platform.processor()}\n"
    )
    print(
        "| contender | CPU ms a step | wall-clock ms a step | beside | ratio | lowest | highest |"
    )
    print("|---|---|---|---|---|---|---|")
    for name, beside in (("bare", "bare"), ("engine", "bare"), ("run", "engine")):
        pairs = zip(seconds[name], seconds[beside], strict=True)
        ratios = [own / other for (own, _), (other, _) in pairs]
        cpu, wall = (
            1e3 * statistics.median(values) / args.steps
            for values in zip(*seconds[name], strict=True)
        )
        print(
            f"| {name} | {cpu:.2f} | {wall:.2f} | {beside} | {statistics.median(ratios):.3f} | "
            f"{min(ratios):.3f} | {max(ratios):.3f} |"
        )


if __name__ == "__main__":
    main()
