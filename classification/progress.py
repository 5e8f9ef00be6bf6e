"""The live progress bar of a run, and one line an epoch above it."""

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from classification.distributed import Ranks
from classification.engine import StepResult


class Progress:
    """Shows epoch, loss, learning rate and the time left, on the first rank.

    Where the output is no terminal, only the lines are printed.

    Args:
        num_steps: Optimiser steps of the whole run.
        update_every: Steps between two updates of the bar.
        ranks: This process among all.
    """

    def __init__(self, num_steps: int, *, update_every: int, ranks: Ranks) -> None:
        self.is_main = ranks.is_main
        self.update_every = update_every
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
        self.task = self.bar.add_task("epoch 1", total=num_steps, figures="")

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
        if self.is_main:
            self.console.print(text, markup=False)

    def step(self, result: StepResult) -> None:
        """Moves the bar to a step."""
        if result.step % self.update_every == 0:
            self.bar.update(
                self.task,
                completed=result.step,
                description=f"epoch {result.epoch + 1}",
                figures=f"loss {result.loss:.3f}  lr {result.learning_rate:.2e}",
            )

    def epoch(self, row: dict[str, float], num_epochs: int) -> None:
        """Prints the figures of an epoch, a row of metrics.csv."""
        scores = ""
        if "top1" in row:
            scores = f"test loss {row['test_loss']:.4f}  top-1 {row['top1']:6.2f} %  "
        self.line(
            f"epoch {row['epoch']:{len(str(num_epochs))}}/{num_epochs}  "
            f"train loss {row['train_loss']:.4f}  {scores}lr {row['learning_rate']:.2e}  "
            f"{row['images_per_second']:.0f} images/s  {row['seconds']:.0f} s"
        )
