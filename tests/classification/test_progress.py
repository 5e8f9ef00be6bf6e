"""What a run shows while it goes on."""

import io

import pytest
import torch
from rich.console import Console

from classification.distributed import Ranks
from classification.results import StepResult
from classification.runs.progress import Progress, describe, peak_memory, step_figures


def step(number: int, **values: object) -> StepResult:
    fields = {
        "epoch": 0,
        "step": number,
        "loss": 2.0,
        "gradient_norm": 1.0,
        "learning_rate": 1e-3,
        "num_images": 8,
        "seconds": 0.5,
        "data_seconds": 0.1,
        "bad_files": (),
        "stop": False,
    }
    return StepResult(**(fields | values))


def ranks(world_size: int = 1) -> Ranks:
    return Ranks(0, world_size, torch.device("cpu"))


def test_figures_are_means_of_the_steps_and_images_of_all_ranks():
    steps = [step(1), step(2, loss=4.0, learning_rate=2e-3, seconds=1.5, data_seconds=0.9)]
    figures = step_figures(steps, ranks(world_size=4))
    assert figures.pop("memory") > 0
    assert figures == pytest.approx(
        {
            "loss": 3.0,
            "gradient_norm": 1.0,
            "learning_rate": 2e-3,
            "images_per_second": 16 * 4 / 2.0,
            "data_share": 0.5,
        }
    )


def test_the_bar_shows_loss_rates_waiting_memory_and_the_time_left(monkeypatch):
    progress = Progress(100, first_step=10, update_every=2, ranks=ranks())
    screen = io.StringIO()
    progress.bar.live.console = Console(file=screen, force_terminal=True, width=150)
    progress.bar.disable = False
    with progress:
        assert progress.step(step(11)) is None
        figures = progress.step(step(12))
        progress.bar.refresh()
    assert figures is not None and describe(figures) in screen.getvalue()
    for part in ("epoch 1", "12%", "loss 2.000", "lr 1.00e-03", "16 images/s", "20 % waiting",
                 "GiB", "left"):  # fmt: skip
        assert part in screen.getvalue()


def test_without_a_terminal_only_lines_are_printed(capsys):
    with Progress(10, first_step=0, update_every=1, ranks=ranks()) as progress:
        progress.step(step(1))
        row = {"epoch": 1, "train_loss": 1.0, "learning_rate": 1e-3, "images_per_second": 5.0}
        row |= {"data_share": 0.25, "bad_files": 2, "seconds": 60.0, "top1": 90.0, "test_loss": 0.1}
        progress.epoch(row, num_epochs=10)
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1
    for part in ("epoch  1/10", "top-1  90.00 %", "25 % waiting", "2 unreadable files"):
        assert part in printed


def test_memory_is_counted_in_bytes():
    # The interpreter with PyTorch: more than 50 MiB, and less than this machine has.
    assert 50 * 2**20 < peak_memory(torch.device("cpu")) < 2**40
