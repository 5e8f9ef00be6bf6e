"""What a run leaves for people: metrics.json, history.json and curves.png."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook
from mmengine.runner import Runner

from internimage.files import write_atomically
from internimage.integrations.openmmlab.scripts.curves import draw_curves

METRICS = "metrics.json"
HISTORY = "history.json"
CURVES = "curves.png"

PERCENT = frozenset({"aAcc", "mIoU", "mAcc", "mDice", "mFscore", "mPrecision", "mRecall"})
"""Scores that mmseg, and the metric of occupancy, report in percent; here all are 0-1."""

PERCENT_OF_CLASS = "IoU_"
"""What such scores of one class begin with."""

History = dict[str, list[list[Any]]]


def to_scores(metrics: Mapping[str, Any]) -> dict[str, float | None]:
    """Return an evaluation's scores by their names alone, 0-1.

    ``coco/bbox_mAP`` is ``bbox_mAP``. A score that is no number is None, as JSON has it;
    pycocotools reports -1 where there is nothing to find.
    """
    scores: dict[str, float | None] = {}
    for name, value in metrics.items():
        try:
            number = float(value)
        except (TypeError, ValueError):
            continue  # a list, or a text
        short = name.rpartition("/")[2]
        key = short if short not in scores else name
        # mmseg's are rounded to two digits, but to the nearest of 32 bits.
        in_percent = short in PERCENT or short.startswith(PERCENT_OF_CLASS)
        share = round(number / 100, 6) if in_percent else number
        scores[key] = share if math.isfinite(number) else None
    return scores


def scores_of_nothing(evaluator: Evaluator) -> dict[str, float]:
    """Return the scores of a detector that has found no object, for which mmdet has none: 0."""
    return {
        f"{name}_mAP": 0.0
        for metric in evaluator.metrics
        # By its name: scripts of segmentors do without mmdet.
        if any(kind.__name__ == "CocoMetric" for kind in type(metric).__mro__)
        and not metric.format_only
        for name in metric.metrics
    }


def write_metrics(work_dir: Path, scores: Mapping[str, Any]) -> None:
    """Write metrics.json, whole or not at all."""
    _write_json(work_dir / METRICS, scores)


class RecordsHook(Hook):
    """Keeps the loss and the scores over the iterations, and draws them.

    Args:
        interval: Iterations that one point of the loss is the mean of.
    """

    priority = "LOW"  # before mmengine saves: the step is in the history beside its checkpoint

    def __init__(self, interval: int = 10) -> None:
        self.interval = interval
        self.history: History = {"loss": [], "scores": []}
        self._sum, self._count = 0.0, 0
        self._num_drawn = -1  # points in the picture; there is none yet

    def before_train(self, runner: Runner) -> None:
        """Take up the history of the run that goes on, up to where it does."""
        path = Path(runner.work_dir, HISTORY)
        if runner.iter and path.is_file():
            try:
                history = json.loads(path.read_text(encoding="utf-8"))
                self.history = {
                    name: [point for point in history[name] if point[0] <= runner.iter]
                    for name in self.history
                }
            except (ValueError, KeyError, TypeError, IndexError):
                runner.logger.warning(f"{path} is damaged; the curves begin here")

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict[str, Any] | None = None,
    ) -> None:
        """Add a step's loss."""
        # A loss that is no number has no part in the mean; DivergenceHook counts those.
        loss = float(torch.as_tensor((outputs or {}).get("loss", math.nan)).detach())
        if math.isfinite(loss):
            self._sum += loss
            self._count += 1
        if self._count and (runner.iter + 1) % self.interval == 0:
            self._add_point(runner.iter + 1)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, Any] | None = None) -> None:
        """Add an evaluation's scores, and write all."""
        # runner.iter is the number of steps done here, and one less in after_train_iter.
        scores = to_scores(metrics or scores_of_nothing(runner.val_evaluator))
        self.history["scores"].append([runner.iter, scores])
        if runner.rank == 0 and scores:
            write_metrics(
                Path(runner.work_dir),
                {**scores, "epoch": runner.epoch, "iteration": runner.iter},
            )
        self._write(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Let the history be as far as the checkpoint is."""
        self._write(runner, draw=False)

    def after_train(self, runner: Runner) -> None:
        """Write what came after the last evaluation."""
        if self._count:
            self._add_point(runner.iter)
        self._write(runner)

    def _add_point(self, iteration: int) -> None:
        self.history["loss"].append([iteration, self._sum / self._count])
        self._sum, self._count = 0.0, 0

    def _write(self, runner: Runner, *, draw: bool = True) -> None:
        if runner.rank:
            return
        _write_json(Path(runner.work_dir, HISTORY), self.history)
        num_points = sum(map(len, self.history.values()))
        if draw and num_points != self._num_drawn:
            draw_curves(self.history, Path(runner.work_dir, CURVES))
            self._num_drawn = num_points


class ScoresHook(Hook):
    """Writes metrics.json behind an evaluation of a checkpoint.

    Args:
        checkpoint: What is evaluated, for the record.
    """

    def __init__(self, checkpoint: str) -> None:
        self.checkpoint = checkpoint

    def after_test_epoch(self, runner: Runner, metrics: dict[str, Any] | None = None) -> None:
        """Write the scores."""
        scores = to_scores(metrics or scores_of_nothing(runner.test_evaluator))
        if runner.rank == 0 and scores:
            write_metrics(Path(runner.work_dir), {**scores, "checkpoint": self.checkpoint})


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    text = json.dumps(content, indent=None if path.name == HISTORY else 1)
    write_atomically(path, lambda file: file.write_text(text + "\n", encoding="utf-8"))
