"""Models that take turns, each in a process of its own: time, memory, FLOPs.

What else the machine does falls on all alike, image by image. A ratio is the median over the rounds
of one contender's time over the yardstick's in the same round. The share of the backbone is
measured in the same passes. Peak memory is that of a process in which nothing but one pass has run;
on a GPU it is PyTorch's count.
"""

import argparse
import dataclasses
import importlib
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

MIB = 2**20
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
    """A contender in a process of its own, which answers each line of its input with one.

    Args:
        command: of the process.
        threads: of PyTorch in it.
        **environment: further variables.
    """

    def __init__(self, command: Sequence[str], threads: int, **environment: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": str(threads)} | environment,
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


def serve(model: Any, run: Callable[[], Any], device: str) -> None:
    """The process of a contender: answers every line of the input with one of JSON."""
    for line in sys.stdin:
        answer = {"pass": time_pass, "memory": measure_memory, "cost": count_cost}[line.strip()]
        print(json.dumps(answer(model, run, device)), flush=True)


def time_pass(model: Any, run: Callable[[], Any], device: str) -> dict[str, float]:
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
    # A window after the other calls the backbone as often.
    backbone = sum(end - start for start, end in zip(moments[::2], moments[1::2], strict=True))
    return dataclasses.asdict(Pass(wall=wall, cpu=cpu, backbone=backbone))


def measure_memory(_model: Any, run: Callable[[], Any], device: str) -> dict[str, float]:
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


def count_cost(model: Any, run: Callable[[], Any], _device: str) -> dict[str, float]:
    """Runs one image; returns parameters in millions and FLOPs in billions, as tables count them.

    ``get_flops.py`` needs no values; mmpretrain's ConvNeXt cannot be built without.
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


def measure(
    names: Sequence[str], start: Callable[..., Worker], *, rounds: int, device: str
) -> tuple[dict[str, list[Pass]], dict[str, dict[str, float]]]:
    """Returns the passes of each contender, and what does not depend on time.

    Args:
        names: of the contenders.
        start: starts a contender's process, by its name and further variables.
        rounds: passes of each.
        device: on which they run.
    """
    facts: dict[str, dict[str, float]] = {}
    for name in names:
        worker = start(name, **(OWN_PAGES if device == "cpu" else {}))
        facts[name] = worker.ask("memory") | worker.ask("cost")
        worker.close()
    workers = {name: start(name) for name in names}
    passes: dict[str, list[Pass]] = {name: [] for name in names}
    for index in range(rounds + 1):
        for name, worker in workers.items():
            answer = worker.ask("pass")
            if index:  # the first one warmed up
                passes[name].append(Pass(**answer))
    for worker in workers.values():
        worker.close()
    return passes, facts


def print_tables(
    passes: Mapping[str, list[Pass]],
    facts: Mapping[str, Mapping[str, float]],
    titles: Mapping[str, str],
    yardstick: str,
) -> None:
    """Prints times and ratios, then sizes and memory.

    Args:
        passes: of each contender.
        facts: of each contender.
        titles: what to call them.
        yardstick: the contender that the others are compared with.
    """
    ours = passes[yardstick]
    print(
        "| backbone | images/s | ms an image | CPU ms | backbone ms | its share | "
        f"time / {titles[yardstick]} | lowest | highest | backbone / {titles[yardstick]} |\n"
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
            f"| {titles[name]} | {1e3 / wall:.3g} | {wall:.4g} | {cpu:.4g} | "
            f"{backbone:.4g} | {100 * share:.0f} % | {statistics.median(ratios):.2f} | "
            f"{min(ratios):.2f} | {max(ratios):.2f} | {of_backbone:.2f} |"
        )
    print(
        "\n| backbone | parameters M | GFLOPs | MiB with the model built | peak MiB | above it |\n"
        "|---|---:|---:|---:|---:|---:|"
    )
    for name, fact in facts.items():
        print(
            f"| {titles[name]} | {fact['parameters']:.1f} | {fact['gflops']:.0f} | "
            f"{fact['before']:.0f} | {fact['peak']:.0f} | {fact['peak'] - fact['before']:.0f} |"
        )


def print_machine(args: argparse.Namespace, *packages: str) -> None:
    """Prints what the numbers belong to.

    Args:
        args: of the command line: ``device``, ``threads``, ``height``, ``width``, ``rounds``.
        packages: whose versions matter beside PyTorch's.
    """
    import torch

    on = processor() if args.device == "cpu" else torch.cuda.get_device_name(args.device)
    versions = ", ".join(f"{name} {importlib.import_module(name).__version__}" for name in packages)
    print(
        f"{on}, {os.cpu_count()} logical cores, {args.threads} thread(s) a process; Python "
        f"{platform.python_version()}, PyTorch {torch.__version__}, {versions}; one image of "
        f"{args.height}x{args.width}, float32, {args.rounds} rounds\n"
    )


def processor() -> str:
    """Returns what the processor calls itself."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
