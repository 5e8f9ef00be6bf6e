r"""Mask R-CNN with InternImage-T beside ResNet-50, ConvNeXt-T and Swin-T: time, memory, FLOPs.

    .venv/bin/python detection/benchmarks/bench_detectors.py
    .venv/bin/python detection/benchmarks/bench_detectors.py --device cuda:0 --rounds 20

Each contender lives in a process of its own; they take turns, image by image, so that what else the
machine does falls on all alike. A ratio is the median over the rounds of one contender's time over
InternImage-T's in the same round. The share of the backbone is measured in the same passes. Peak
memory is that of a process in which nothing but one pass has run; on a GPU it is PyTorch's count.

ConvNeXt-T comes with mmpretrain, which nothing else here needs; without it its row is left out,
with a note.
"""

import argparse
import dataclasses
import importlib.util
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

MIB = 2**20
YARDSTICK = "internimage_t"
# Each tensor above a megabyte has pages of its own, which go when it goes. Otherwise the C library
# keeps the holes between tensors, and the peak is that of its heap. It costs time: memory only.
OWN_PAGES = {"MALLOC_MMAP_THRESHOLD_": str(10**6)}


@dataclasses.dataclass
class Pass:
    """What one image took.

    Args:
        wall: seconds.
        cpu: seconds of all threads.
        backbone: the backbone's part of ``wall``, seconds.
    """

    wall: float
    cpu: float
    backbone: float


class Worker:
    """A contender in a process of its own, which runs an image a line of its input."""

    def __init__(self, name: str, args: argparse.Namespace, **environment: str) -> None:
        command = [sys.executable, __file__, "--worker", name, f"--device={args.device}"]
        keys = ("height", "width", "threads", "pyramid")
        command += [f"--{key}={getattr(args, key)}" for key in keys]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": str(args.threads)} | environment,
        )

    def ask(self, question: str) -> dict[str, Any]:
        """Sends one line, returns the answer."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{question}\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("{"):  # libraries print other things while they load
                return json.loads(line)
        raise RuntimeError(f"expected an answer to {question}, got the end of the process")

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def work(args: argparse.Namespace) -> None:
    """The process of a contender: answers every line of the input with one of JSON."""
    import torch

    from detection.benchmarks.contenders import CONTENDERS, build, forward_pass

    torch.set_num_threads(args.threads)
    model = build(CONTENDERS[args.worker], width=args.pyramid).to(args.device)
    run = forward_pass(model, args.height, args.width, args.device)
    for line in sys.stdin:
        answer = {"pass": time_pass, "memory": measure_memory, "cost": count_cost}[line.strip()]
        print(json.dumps(answer(model, run, args.device)), flush=True)


def time_pass(model: Any, run: Any, device: str) -> dict[str, float]:
    """Runs one image."""
    import torch

    def now() -> float:
        if device != "cpu":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    moments: list[float] = []
    hooks = (
        model.backbone.register_forward_pre_hook(lambda *_: moments.append(now())),
        model.backbone.register_forward_hook(lambda *_: moments.append(now())),
    )
    wall, cpu = now(), time.process_time()
    run()
    wall, cpu = now() - wall, time.process_time() - cpu
    for hook in hooks:
        hook.remove()
    return dataclasses.asdict(Pass(wall=wall, cpu=cpu, backbone=moments[1] - moments[0]))


def measure_memory(_model: Any, run: Any, device: str) -> dict[str, float]:
    """Runs one image; returns the MiB held before it and the peak while it ran."""
    import torch

    if device != "cpu":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        return {"before": before / MIB, "peak": torch.cuda.max_memory_allocated(device) / MIB}
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    run()
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kibibytes on Linux
    return {"before": pages * resource.getpagesize() / MIB, "peak": peak / MIB}


def count_cost(model: Any, run: Any, _device: str) -> dict[str, float]:
    """Runs one image; returns parameters in millions and FLOPs in billions, as tables count them.

    ``detection/get_flops.py`` needs no values; mmpretrain's ConvNeXt cannot be built without.
    """
    from torch.utils.flop_counter import FlopCounterMode

    from internimage.complexity import count_parameters
    from internimage.integrations.openmmlab.scripts.complexity import sampling_operations

    with sampling_operations(model) as sampling, FlopCounterMode(display=False) as counter:
        run()
    return {
        "parameters": count_parameters(model) / 1e6,
        "gflops": (counter.get_total_flops() // 2 + sum(sampling)) / 1e9,
    }


def available(names: Sequence[str]) -> list[str]:
    """Returns the contenders that can be built here; says how to get the others."""
    from detection.benchmarks.contenders import CONTENDERS

    there = []
    for name in names:
        needs = CONTENDERS[name].needs
        if needs is not None and importlib.util.find_spec(needs[0]) is None:
            print(f"note: no row for {CONTENDERS[name].title}: {needs[1]}\n")
        else:
            there.append(name)
    return there


def measure(
    names: Sequence[str], args: argparse.Namespace
) -> tuple[dict[str, list[Pass]], dict[str, dict[str, float]]]:
    """Returns the passes of each contender, and what does not depend on time."""
    facts: dict[str, dict[str, float]] = {}
    for name in names:
        worker = Worker(name, args, **(OWN_PAGES if args.device == "cpu" else {}))
        facts[name] = worker.ask("memory") | worker.ask("cost")
        worker.close()
    workers = {name: Worker(name, args) for name in names}
    passes: dict[str, list[Pass]] = {name: [] for name in names}
    for index in range(args.rounds + 1):
        for name, worker in workers.items():
            answer = worker.ask("pass")
            if index:  # the first one warmed up
                passes[name].append(Pass(**answer))
    for worker in workers.values():
        worker.close()
    return passes, facts


def print_tables(
    passes: dict[str, list[Pass]], facts: dict[str, dict[str, float]], args: argparse.Namespace
) -> None:
    """Prints times and ratios, then sizes and memory."""
    from detection.benchmarks.contenders import CONTENDERS

    ours = passes[YARDSTICK]
    print(
        "| backbone | images/s | ms an image | CPU ms | backbone ms | its share | "
        "time / InternImage-T | lowest | highest | backbone / InternImage-T |\n"
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
    )
    for name, own in passes.items():
        wall, cpu, backbone = (
            1e3 * statistics.median(getattr(one, key) for one in own)
            for key in ("wall", "cpu", "backbone")
        )
        share = statistics.median(one.backbone / one.wall for one in own)
        ratios = [one.wall / other.wall for one, other in zip(own, ours, strict=True)]
        of_backbone = statistics.median(
            one.backbone / other.backbone for one, other in zip(own, ours, strict=True)
        )
        print(
            f"| {CONTENDERS[name].title} | {1e3 / wall:.3g} | {wall:.4g} | {cpu:.4g} | "
            f"{backbone:.4g} | {100 * share:.0f} % | {statistics.median(ratios):.2f} | "
            f"{min(ratios):.2f} | {max(ratios):.2f} | {of_backbone:.2f} |"
        )
    print(
        "\n| backbone | parameters M | GFLOPs | MiB with the model built | peak MiB | above it |\n"
        "|---|---:|---:|---:|---:|---:|"
    )
    for name, fact in facts.items():
        print(
            f"| {CONTENDERS[name].title} | {fact['parameters']:.1f} | {fact['gflops']:.0f} | "
            f"{fact['before']:.0f} | {fact['peak']:.0f} | {fact['peak'] - fact['before']:.0f} |"
        )


def print_machine(args: argparse.Namespace) -> None:
    """Prints what the numbers belong to."""
    import mmcv
    import mmdet
    import torch

    from detection.benchmarks.bench_loader import processor

    on = processor() if args.device == "cpu" else torch.cuda.get_device_name(args.device)
    print(
        f"{on}, {os.cpu_count()} logical cores, {args.threads} thread(s) a process; Python "
        f"{platform.python_version()}, PyTorch {torch.__version__}, mmcv {mmcv.__version__}, "
        f"mmdet {mmdet.__version__}; one image of {args.height}x{args.width}, float32, "
        f"{args.rounds} rounds\n"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints the tables."""
    parser = argparse.ArgumentParser(description="Mask R-CNN with four backbones.")
    parser.add_argument("--device", default="cpu", help="cpu or cuda:0")
    parser.add_argument("--height", type=int, default=800, help="of the image, pixels")
    parser.add_argument("--width", type=int, default=1280, help="of the image, pixels")
    parser.add_argument("--rounds", type=int, default=7, help="images of each contender")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="a process")
    parser.add_argument("--pyramid", type=int, default=256, help="channels of the pyramid")
    parser.add_argument("--only", nargs="+", help="these contenders, InternImage-T among them")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.worker:
        work(args)
        return
    from detection.benchmarks.contenders import CONTENDERS

    print_machine(args)
    names = available(args.only or list(CONTENDERS))
    print_tables(*measure(names, args), args)


if __name__ == "__main__":
    main()
