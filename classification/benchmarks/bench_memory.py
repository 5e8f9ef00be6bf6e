r"""What a rank of two holds under each strategy, and what gradient checkpointing saves.

    .venv/bin/python classification/benchmarks/bench_memory.py

Two gloo ranks make one step of AdamW in float32 under each strategy; counted are the bytes of the
weights and of the optimiser's states that a rank keeps between two steps. ZeRO steps on a copy of
its share of the weights, which counts as the optimiser's.

Gradient checkpointing: one process a contender, in turns; the peak is that of the process's memory
while it steps, above what it holds with the model built and before any step: activations,
gradients, states. Times are medians.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
import torch.nn.functional as F

import internimage
from classification.config import get_default_config
from classification.distributed import Ranks, end_ranks, start_ranks
from classification.strategies import Strategy, build_strategy

MIB = 2**20
# Each tensor above a megabyte has pages of its own, which go when it goes. Otherwise the C library
# keeps the holes between tensors, and the peak is that of its heap.
OWN_PAGES = {"MALLOC_MMAP_THRESHOLD_": str(10**6)}
NUM_CLASSES = 1000
ZERO = ["TRAIN.STRATEGY", "deepspeed", "TRAIN.ZERO_STAGE"]
# Name -> settings, and the expected share of weights and of states in bytes of the whole weights.
STRATEGIES: dict[str, tuple[list[Any], float, float]] = {
    "ddp": ([], 1.0, 2.0),
    "ddp, USE_ZERO": (["TRAIN.OPTIMIZER.USE_ZERO", True], 1.0, 1.0),
    "deepspeed, ZeRO-1": ([*ZERO, 1], 1.0, 1.5),
    "deepspeed, ZeRO-2": ([*ZERO, 2], 1.0, 1.5),
    "deepspeed, ZeRO-3": ([*ZERO, 3], 0.5, 1.5),
    "fsdp": (["TRAIN.STRATEGY", "fsdp"], 0.5, 1.0),
}


def build(args: argparse.Namespace, ranks: Ranks, options: Sequence[Any]) -> Strategy:
    """Builds the model under the strategy that ``options`` name."""
    config = get_default_config()
    config.merge_from_list(["AMP_OPT_LEVEL", "O0", "DATA.BATCH_SIZE", args.batch, *options])
    model = internimage.create_model(
        args.model, num_classes=NUM_CLASSES, with_cp=config.TRAIN.USE_CHECKPOINT
    )
    return build_strategy(config, model, ranks, factor=1.0)


def step(strategy: Strategy, batch: int, size: int) -> None:
    """Makes a step on random images."""
    images = torch.randn(batch, 3, size, size)
    labels = torch.randint(NUM_CLASSES, (batch,))
    with strategy.batch_of_step(is_last=True):
        strategy.backward(F.cross_entropy(strategy.forward(images), labels), is_last=True)
    strategy.step(clip_grad=5.0)


def hold(args: argparse.Namespace) -> None:
    """One of two ranks: writes the bytes under each strategy to a file of its own."""
    ranks = start_ranks()
    held = {}
    for name, (options, *_) in STRATEGIES.items():
        strategy = build(args, ranks, options)
        step(strategy, batch=1, size=64)  # the bytes do not depend on the images
        held[name] = strategy.bytes_held()
        strategy.close()
        del strategy
    Path(args.folder, f"rank_{ranks.rank}.json").write_text(json.dumps(held))
    end_ranks()


def checkpoint(args: argparse.Namespace) -> None:
    """A process of its own: prints the peak of memory and the seconds of a step as JSON."""
    torch.set_num_threads(args.threads)
    ranks = Ranks(rank=0, world_size=1, device=torch.device("cpu"))
    strategy = build(args, ranks, ["TRAIN.USE_CHECKPOINT", args.on])
    before = peak_bytes()
    seconds = []
    for _ in range(args.steps + 1):
        started = time.perf_counter()
        step(strategy, args.batch, args.size)
        seconds.append(time.perf_counter() - started)
    print(json.dumps({"bytes": peak_bytes() - before, "seconds": statistics.median(seconds[1:])}))


def peak_bytes() -> int:
    """Returns the most memory that this process has held so far."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kibibytes on Linux


def run(args: argparse.Namespace, *command: str) -> str:
    """Runs this file again; returns what it prints."""
    sizes = [f"--{name}={getattr(args, name)}" for name in ("model", "batch", "size", "steps")]
    result = subprocess.run(
        [sys.executable, *command, *sizes, f"--threads={args.threads}"],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": str(args.threads)} | OWN_PAGES,
    )
    return result.stdout


def print_strategies(args: argparse.Namespace) -> None:
    """Prints the table of the strategies."""
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    with tempfile.TemporaryDirectory() as folder:
        run(args, *launcher, __file__, "--part=hold", f"--folder={folder}")
        files = sorted(Path(folder).glob("rank_*.json"))
        held = [json.loads(file.read_text()) for file in files]
    whole = held[0]["ddp"]["parameters"]
    print(f"\n## Bytes a rank of two holds, {args.model}, whole weights {whole / MIB:.1f} MiB\n")
    print("| strategy | weights MiB | share | expected | states MiB | share | expected |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name, (_, parameters, optimizer) in STRATEGIES.items():
        cells = [name]
        for key, expected in (("parameters", parameters), ("optimizer", optimizer)):
            most = max(rank[name][key] for rank in held)
            cells += [f"{most / MIB:.1f}", f"{most / whole:.3f}", f"{expected:g}"]
        print(f"| {' | '.join(cells)} |")


def print_checkpointing(args: argparse.Namespace) -> None:
    """Prints the table of gradient checkpointing."""
    found: dict[bool, list[dict[str, float]]] = {False: [], True: []}
    for _ in range(args.turns):
        for on in found:
            command = [__file__, "--part=checkpoint", *(["--on"] if on else [])]
            found[on].append(json.loads(run(args, *command)))
    print(f"\n## Gradient checkpointing, {args.model}, {args.batch} images of {args.size} pixels\n")
    print("| USE_CHECKPOINT | peak of a step MiB | of off | seconds a step | of off |")
    print("|---|---:|---:|---:|---:|")
    medians = {
        (on, key): statistics.median(turn[key] for turn in turns)
        for on, turns in found.items()
        for key in ("bytes", "seconds")
    }
    for on in found:
        peak, seconds = medians[on, "bytes"], medians[on, "seconds"]
        shares = peak / medians[False, "bytes"], seconds / medians[False, "seconds"]
        print(f"| {on} | {peak / MIB:.0f} | {shares[0]:.2f} | {seconds:.2f} | {shares[1]:.2f} |")


def main() -> None:
    """Prints both tables, or does the part of one process in them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", default="internimage_t")
    parser.add_argument("--batch", type=int, default=8, help="images of a step")
    parser.add_argument("--size", type=int, default=224, help="pixels")
    parser.add_argument("--steps", type=int, default=3, help="measured steps of a turn")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--part", choices=("hold", "checkpoint"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--on", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        {"hold": hold, "checkpoint": checkpoint}[args.part](args)
        return
    print(
        f"{platform.machine()}, {os.cpu_count()} logical cores, {args.threads} thread(s) a "
        f"process; PyTorch {torch.__version__}, Python {platform.python_version()}"
    )
    print_strategies(args)
    print_checkpointing(args)


if __name__ == "__main__":
    main()
