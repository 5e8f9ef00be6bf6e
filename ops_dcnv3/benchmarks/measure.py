"""Interleaved timing, peak memory, and tables in Markdown.

Contenders take turns, one sample each, round after round, and medians are compared: what else the
machine does falls on all of them alike.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

import ops_dcnv3

SHORTEST_SAMPLE = 5e-3  # seconds: faster calls are repeated, the clock and caches settle
STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Effort:
    """How long to measure: rounds for each table row, within a budget."""

    least_rounds: int
    most_rounds: int
    seconds: float  # for one row; least_rounds are run even if they take longer


FULL = Effort(least_rounds=5, most_rounds=41, seconds=6.0)
QUICK = Effort(least_rounds=3, most_rounds=5, seconds=0.5)


def _sample(run: Callable[[], object], calls: int) -> float:
    """Seconds of one call, from `calls` in a row."""
    start = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - start) / calls


def medians(
    contenders: Mapping[str, Callable[[], object]],
    effort: Effort,
    prepare: Callable[[str], None] = lambda name: None,
) -> dict[str, float]:
    """Median seconds of each contender, sampled in turns after one warm-up call.

    Args:
        contenders: What to run, by name.
        effort: How long.
        prepare: Called with the name before each sample of that contender, outside the timing.
    """
    calls = {}
    for name, run in contenders.items():
        prepare(name)
        run()
        calls[name] = max(1, round(SHORTEST_SAMPLE / max(_sample(run, 1), 1e-6)))

    def sampler(name: str, run: Callable[[], object]) -> Callable[[], float]:
        def sample() -> float:
            prepare(name)
            run()  # so that each finds the caches as it leaves them, not as another does
            return _sample(run, calls[name])

        return sample

    return interleave({name: sampler(name, run) for name, run in contenders.items()}, effort)


def interleave(samplers: Mapping[str, Callable[[], float]], effort: Effort) -> dict[str, float]:
    """Median of each sampler's results, taken in turns.

    Args:
        samplers: By name, what takes one sample: seconds of a call.
        effort: How long.
    """
    samples: dict[str, list[float]] = {name: [] for name in samplers}
    deadline = time.perf_counter() + effort.seconds
    for done in range(effort.most_rounds):
        if done >= effort.least_rounds and time.perf_counter() > deadline:
            break
        for name, sample in samplers.items():
            samples[name].append(sample())
    return {name: statistics.median(values) for name, values in samples.items()}


def _status(field_name: str) -> int:
    """Bytes of a field of /proc/self/status."""
    for line in STATUS.read_text().splitlines():
        if line.startswith(field_name + ":"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"_status: expected a field of {STATUS}, got {field_name!r}")


def peak_extra_bytes(run: Callable[[], object]) -> int:
    """Resident memory that `run` adds at its peak, in bytes (Linux).

    The system's own high-water mark, so it counts what kernels allocate behind PyTorch's back. Call
    it in a new process: memory freed to the C library but not to the system hides new use.
    """
    before = _status("VmRSS")
    CLEAR_REFS.write_text("5")  # resets VmHWM
    result = run()  # kept alive until the mark is read
    peak = _status("VmHWM")
    del result
    return max(0, peak - before)


def judge(value: float, goal: float, *, at_most: bool = False) -> tuple[str, str]:
    """Cells of a goal and of its verdict: the goal as text, then "met" or "missed"."""
    met = value <= goal if at_most else value >= goal
    return f"{'<=' if at_most else '>='} {goal:.2f}", "met" if met else "missed"


@dataclass
class Table:
    """Rows of text under a title, printed as Markdown."""

    title: str
    columns: list[str]
    note: str = ""
    rows: list[list[str]] = field(default_factory=list)

    def add(self, *cells: object) -> None:
        """Append a row; floats get two decimals."""
        self.rows.append([f"{c:.2f}" if isinstance(c, float) else str(c) for c in cells])

    def markdown(self) -> str:
        """The table with aligned columns."""
        grid = [self.columns, *self.rows]
        widths = [max(len(row[i]) for row in grid) for i in range(len(self.columns))]

        def line(cells: list[str]) -> str:
            padded = (cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
            return "| " + " | ".join(padded) + " |"

        ruler = "|" + "|".join("-" * (width + 1) + ":" for width in widths) + "|"
        parts = [f"## {self.title}", ""]
        parts += [self.note, ""] if self.note else []
        return "\n".join([*parts, line(grid[0]), ruler, *map(line, grid[1:])])


def describe_machine(threads: int) -> str:
    """The hardware and versions that a record needs to mean anything."""
    info = ops_dcnv3.extension_info()
    lines = Path("/proc/cpuinfo").read_text().splitlines() if STATUS.exists() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    cpu = f"{models[0]}, {len(models)} logical cores" if models else platform.processor()
    return "\n".join(
        [
            f"- CPU: {cpu}; {threads} thread(s) unless said otherwise",
            f"- instruction sets: {', '.join(info['cpu_levels'])}; default {info['cpu_level']}",
            f"- ops_dcnv3 {info['version']}, PyTorch {torch.__version__}, "
            f"Python {platform.python_version()}, {platform.system()} {platform.machine()}",
        ]
    )


def print_tables(tables: Iterable[Table], text: str, record: Path | None, before: str) -> None:
    """Prints tables as they come, and adds each to the record: what was measured is not lost.

    Args:
        tables: Measured while they are asked for.
        text: What stands above them.
        record: The file to write, if any.
        before: What the file begins with, above ``text``.
    """
    print(text)
    if record:
        record.parent.mkdir(parents=True, exist_ok=True)
    for table in tables:
        print(table.markdown(), end="\n\n", flush=True)
        text += f"\n{table.markdown()}\n"
        if record:
            record.write_text(f"{before}\n{text}")
