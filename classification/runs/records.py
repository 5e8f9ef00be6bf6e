"""What a run leaves to read: metrics.csv, summary.json, config.yaml, curves.png."""

import csv
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from internimage.files import write_atomically

# One row an epoch. Losses are means an image, scores are percent, data_share is the part of the
# time (0-1) that the training waited for data, seconds count from the start.
COLUMNS = (
    "epoch",
    "step",
    "learning_rate",
    "train_loss",
    "gradient_norm",
    "test_loss",
    "top1",
    "top5",
    "images_per_second",
    "data_share",
    "bad_files",
    "seconds",
)


def write_metrics(path: Path, rows: Sequence[dict[str, float]]) -> None:
    """Writes metrics.csv; an epoch without evaluation has empty scores."""

    def write(file: Path) -> None:
        with file.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)

    write_atomically(path, write)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes a dict as indented JSON."""
    text = json.dumps(content, indent=2) + "\n"
    write_atomically(path, lambda file: file.write_text(text, encoding="utf-8"))


def weights_sha256(state_dict: dict[str, torch.Tensor]) -> str:
    """Returns the SHA-256 over the bytes of all tensors, in the order of the sorted keys.

    Two runs have equal sums exactly when their weights are equal bit by bit.
    """
    digest = hashlib.sha256()
    for key in sorted(state_dict):
        tensor = state_dict[key].detach().cpu().contiguous()
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def draw_curves(path: Path, rows: Sequence[dict[str, float]], *, title: str) -> None:
    """Draws loss, accuracy and learning rate over the epochs to a PNG file."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter

    blue, orange, grey = "#0072B2", "#D55E00", "#666666"  # Okabe-Ito: told apart by all eyes
    look: dict[str, Any] = {"linewidth": 1.8, "markersize": 4, "marker": "o"}
    if len(rows) > 40:
        look["marker"] = None
    epochs = [row["epoch"] for row in rows]
    evaluated = [row for row in rows if "top1" in row]
    evaluated_epochs = [row["epoch"] for row in evaluated]

    figure = Figure(figsize=(12, 4), layout="constrained")
    figure.suptitle(title)
    loss_axes, score_axes, rate_axes = figure.subplots(1, 3)

    losses = [row["train_loss"] for row in rows]
    loss_axes.plot(epochs, losses, color=blue, label="training (augmented)", **look)
    losses = [row["test_loss"] for row in evaluated]
    loss_axes.plot(evaluated_epochs, losses, color=orange, label="test", **look)
    loss_axes.set(title="Loss", ylabel="cross-entropy (nats an image)", yscale="log")
    number = FuncFormatter(lambda value, _: f"{value:g}")
    loss_axes.yaxis.set_major_formatter(number)
    low, high = loss_axes.get_ylim()
    # A range within a decade has no tick of the major kind.
    loss_axes.yaxis.set_minor_formatter(number if high < 10 * low else NullFormatter())
    loss_axes.legend(frameon=False)

    # The error on a logarithmic scale, upside down and labelled as accuracy: 98 and 99 % differ.
    errors = [100 - row["top1"] for row in evaluated]
    score_axes.plot(evaluated_epochs, errors, color=orange, **look)
    score_axes.set_yscale("symlog", linthresh=1)
    score_axes.set_ylim(100, -0.05)
    score_axes.yaxis.set_major_locator(FixedLocator([100, 50, 20, 10, 5, 2, 1, 0.5, 0]))
    score_axes.yaxis.set_minor_locator(FixedLocator([]))
    score_axes.yaxis.set_major_formatter(FuncFormatter(lambda error, _: f"{100 - error:g}"))
    score_axes.set(title="Test accuracy", ylabel="right images (%)")
    if evaluated:
        label = f"at the end: {evaluated[-1]['top1']:.2f} %"
        score_axes.text(0.97, 0.05, label, transform=score_axes.transAxes, ha="right")

    rate_axes.plot(epochs, [row["learning_rate"] for row in rows], color=grey, **look)
    rate_axes.set(title="Learning rate", ylabel="at the end of the epoch", ylim=(0, None))
    rate_axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    for axes in (loss_axes, score_axes, rate_axes):
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    write_atomically(path, lambda file: figure.savefig(file, dpi=130))
