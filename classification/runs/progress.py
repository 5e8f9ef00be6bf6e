"""The live progress bar of a run, and one line an epoch above it."""

import resource
import sys
from types import TracebackType

import torch
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from classification.distributed import Ranks
from classification.results import StepResult


class Progress:
    """Shows epoch, loss, rates, waiting for data, memory and the time left, on the first rank.

    Where the output is no terminal, only the lines are printed.

    Args:
        num_steps: Optimiser steps of the whole run.
        first_step: Steps that are made already.
        update_every: Steps between two updates of the bar.
        ranks: This process among all.
    """

    def __init__(self, num_steps: int, *, first_step: int, update_every: int, ranks: Ranks) -> None:
        self.ranks = ranks
        self.update_every = update_every
        self.recent: list[StepResult] = []  # since the last update
        self.console = Console(highlight=False, soft_wrap=True)
        self.bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:3.0f}%"),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not (ranks.is_main and self.console.is_terminal),
        )
        self.task = self.bar.add_task("", total=num_steps, completed=first_step, figures="")

    def __enter__(self) -> "Progress":
        self.bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bar.stop()

    def line(self, text: str) -> None:
        """Prints a line above the bar."""
        if self.ranks.is_main:
            self.console.print(text, markup=False)

    def step(self, result: StepResult) -> dict[str, float] | None:
        """Takes a step in; returns the figures of the last PRINT_FREQ steps when they are full."""
        self.recent.append(result)
        if len(self.recent) < self.update_every:
            return None
        figures = step_figures(self.recent, self.ranks)
        self.recent.clear()
        self.bar.update(
            self.task,
            completed=result.step,
            description=f"epoch {result.epoch + 1}",
            figures=describe(figures),
        )
        return figures

    def epoch(self, row: dict[str, float], num_epochs: int) -> str:
        """Prints and returns a line with the figures of an epoch, a row of metrics.csv."""
        scores = ""
        if "top1" in row:
            scores = f"test loss {row['test_loss']:.4f}  top-1 {row['top1']:6.2f} %  "
        bad_files = f"  {row['bad_files']:.0f} unreadable files" if row["bad_files"] else ""
        text = (
            f"epoch {row['epoch']:{len(str(num_epochs))}}/{num_epochs}  "
            f"train loss {row['train_loss']:.4f}  {scores}lr {row['learning_rate']:.2e}  "
            f"{row['images_per_second']:.0f} images/s  {100 * row['data_share']:.0f} % waiting  "
            f"{row['seconds']:.0f} s{bad_files}"
        )
        self.line(text)
        return text


def step_figures(steps: list[StepResult], ranks: Ranks) -> dict[str, float]:
    """Returns the figures of a few steps: means of this rank, images a second of all ranks.

    ``memory`` is the most that this rank has held so far, in GiB: of the CUDA device, else of the
    process.
    """
    seconds = sum(step.seconds for step in steps)
    return {
        "loss": sum(step.loss for step in steps) / len(steps),
        "gradient_norm": sum(step.gradient_norm for step in steps) / len(steps),
        "learning_rate": steps[-1].learning_rate,
        "images_per_second": sum(step.num_images for step in steps) * ranks.world_size / seconds,
        "data_share": sum(step.data_seconds for step in steps) / seconds,
        "memory": peak_memory(ranks.device) / 2**30,
    }


def describe(figures: dict[str, float]) -> str:
    """Returns the figures of ``step_figures`` as the bar and the log show them."""
    return (
        f"loss {figures['loss']:.3f}  lr {figures['learning_rate']:.2e}  "
        f"{figures['images_per_second']:.0f} images/s  "
        f"{100 * figures['data_share']:.0f} % waiting  {figures['memory']:.1f} GiB"
    )


def peak_memory(device: torch.device) -> int:
    """Returns the most bytes that this process has held so far, on CUDA or in main memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024  # of getrusage(2)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
