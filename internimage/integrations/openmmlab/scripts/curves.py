"""The picture of a run: its loss and its scores over the iterations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from internimage.files import write_atomically

HEADLINES = (
    *("bbox_mAP", "segm_mAP", "mIoU", "mAcc", "mAP", "bbox_AP", "AP", "JI"),
    *("OLS", "DET_l", "DET_t"),
)
"""The scores that are drawn, of the many that are measured."""

INK, MUTED, GRID = "#1f2937", "#6b7280", "#e5e7eb"
COLOURS = ("#2563eb", "#d97706", "#059669", "#7c3aed")


def draw_curves(history: Mapping[str, Sequence[Sequence[Any]]], path: Path) -> None:
    """Draw the loss, and beside it the scores if there are any.

    Args:
        history: ``loss``: pairs of an iteration and a loss; ``scores``: pairs of an iteration and
            scores by name, 0-1 or None.
        path: The PNG file; written whole or not at all.
    """
    lines = _score_lines(history["scores"])
    # Not pyplot, which keeps every figure until it is closed and may look for a screen.
    figure = Figure(figsize=(9 if lines else 5, 3.4), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2 if lines else 1, squeeze=False)[0]
    points = history["loss"]
    marker = "o" if len(points) == 1 else None  # a line of one point is not to be seen
    steps, losses = zip(*points, strict=True) if points else ((), ())
    axes[0].plot(steps, losses, color=COLOURS[0], lw=1.4, marker=marker, ms=3.5)
    _dress(axes[0], "training loss")
    axes[0].set_ylim(bottom=0)
    if lines:
        for (name, (at, values)), colour in zip(lines.items(), COLOURS, strict=False):
            label = f"{name}  {values[-1]:.3f}"  # not at the line's end: the ends may be close
            axes[1].plot(at, values, color=colour, lw=1.8, marker="o", ms=3.5, label=label)
        _dress(axes[1], "validation")
        axes[1].set_xlim(axes[0].get_xlim())
        axes[1].set_ylim(0, max(1e-3, *(max(values) for _, values in lines.values())) * 1.15)
        axes[1].legend(frameon=False, fontsize=8, labelcolor=INK, loc="lower right")
    write_atomically(path, lambda file: figure.savefig(file))


def _score_lines(
    points: Sequence[Sequence[Any]],
) -> dict[str, tuple[list[int], list[float]]]:
    """Return the scores to draw by name: iterations and values."""
    lines: dict[str, tuple[list[int], list[float]]] = {}
    for iteration, scores in points:
        for name in HEADLINES:
            if scores.get(name) is not None and scores[name] >= 0:
                steps, values = lines.setdefault(name, ([], []))
                steps.append(iteration)
                values.append(scores[name])
    return dict(list(lines.items())[: len(COLOURS)])  # no colour twice


def _dress(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=10, color=INK, loc="left")
    axes.set_xlabel("iteration", fontsize=9, color=MUTED)
    axes.grid(color=GRID, lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=MUTED, labelsize=8, length=0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GRID)
