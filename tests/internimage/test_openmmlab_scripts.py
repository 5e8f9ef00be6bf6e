"""Parts of the OpenMMLab scripts on their own: records, curves, losses that are no numbers."""

from __future__ import annotations

import json
import logging
import math
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmdet.evaluation import CocoMetric
from mmengine.evaluator import Evaluator
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn

from internimage.integrations.openmmlab.scripts import records
from internimage.integrations.openmmlab.scripts.command_line import run_script
from internimage.integrations.openmmlab.scripts.curves import draw_curves
from internimage.integrations.openmmlab.scripts.data_checks import require_images
from internimage.integrations.openmmlab.scripts.divergence import DivergenceHook
from internimage.integrations.openmmlab.scripts.evaluation import MissedEvaluationHook
from internimage.integrations.openmmlab.scripts.mixed_precision import HostAmpOptimWrapper
from internimage.integrations.openmmlab.scripts.old_config import check_generation
from internimage.integrations.openmmlab.scripts.records import (
    RecordsHook,
    ScoresHook,
    scores_of_nothing,
    to_scores,
)
from internimage.integrations.openmmlab.scripts.safe_loading import register_safe_loading
from internimage.integrations.openmmlab.scripts.seeds import StepSeedHook
from internimage.script import DivergedError
from tests.script_runs import signals_and_warnings_as_before  # noqa: F401


def runner_in(folder: Path, **more: Any) -> Any:
    logger = SimpleNamespace(warning=lambda text: None)
    return SimpleNamespace(
        **{"work_dir": str(folder), "rank": 0, "iter": 0, "epoch": 0, "logger": logger, **more}
    )


def test_scores_have_short_names_and_are_between_0_and_1():
    metrics = {"coco/bbox_mAP": 0.25, "mIoU": 41.5, "aAcc": np.float32(80), "coco/x": math.nan}
    assert to_scores(metrics) == {"bbox_mAP": 0.25, "mIoU": 0.415, "aAcc": 0.8, "x": None}


def test_two_metrics_with_one_name_keep_both():
    assert to_scores({"a/mAP": 0.1, "b/mAP": 0.2, "list": [1]}) == {"mAP": 0.1, "b/mAP": 0.2}


def test_a_history_goes_on_where_the_run_does(tmp_path: Path):
    first = RecordsHook(interval=2)
    for step in range(6):
        runner = runner_in(tmp_path, iter=step)
        first.after_train_iter(runner, step, outputs={"loss": torch.tensor(float(step))})
    first.after_val_epoch(runner_in(tmp_path, iter=6, epoch=1), {"coco/bbox_mAP": 0.5})
    resumed = RecordsHook(interval=2)
    resumed.before_train(runner_in(tmp_path, iter=4))  # behind the last checkpoint
    assert resumed.history == {"loss": [[2, 0.5], [4, 2.5]], "scores": []}
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics == {"bbox_mAP": 0.5, "epoch": 1, "iteration": 6}


def test_the_curves_are_drawn_again_at_the_end_only_where_something_is_new(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(records, "draw_curves", lambda history, path: drawn.append(path.name))
    hook = RecordsHook(interval=2)
    for step in range(5):
        hook.after_train_iter(runner_in(tmp_path, iter=step), step, outputs={"loss": 1.0})
        if step in (1, 3):
            hook.after_val_epoch(runner_in(tmp_path, iter=step + 1), {"mIoU": 50.0})
            hook.after_train(runner_in(tmp_path, iter=step + 1))
            assert drawn == ["curves.png"] * ((step + 1) // 2)
    hook.after_train(runner_in(tmp_path, iter=5))
    assert hook.history["loss"][-1] == [5, 1.0] and drawn == ["curves.png"] * 3


def test_a_damaged_history_is_no_end_of_a_run(tmp_path: Path):
    (tmp_path / "history.json").write_text('{"loss": [')
    hook = RecordsHook()
    hook.before_train(runner_in(tmp_path, iter=4))
    assert hook.history == {"loss": [], "scores": []}


def test_a_detector_that_finds_nothing_scores_0_and_files_for_a_server_are_no_score():
    def score(metric: CocoMetric) -> dict[str, float]:
        return scores_of_nothing(Evaluator([metric]))

    assert score(CocoMetric(metric=["bbox", "segm"])) == {"bbox_mAP": 0.0, "segm_mAP": 0.0}
    assert score(CocoMetric(metric="bbox", format_only=True, outfile_prefix="x")) == {}


def test_only_the_first_rank_writes(tmp_path: Path):
    ScoresHook("a.pth").after_test_epoch(runner_in(tmp_path, rank=1), {"mIoU": 50.0})
    assert not list(tmp_path.iterdir())
    ScoresHook("a.pth").after_test_epoch(runner_in(tmp_path), {"mIoU": 50.0})
    assert json.loads((tmp_path / "metrics.json").read_text()) == {
        "mIoU": 0.5,
        "checkpoint": "a.pth",
    }


def test_curves_have_a_panel_of_scores_only_where_there_are_some(tmp_path: Path):
    losses = [[step, 1 / step] for step in range(1, 9)]
    scores = [[4, {"bbox_mAP": 0.2, "segm_mAP": None}], [8, {"bbox_mAP": 0.4, "segm_mAP": 0.3}]]
    draw_curves({"loss": losses, "scores": []}, tmp_path / "a.png")
    draw_curves({"loss": losses, "scores": scores}, tmp_path / "b.png")
    draw_curves({"loss": [], "scores": []}, tmp_path / "c.png")
    one, two = cv2.imread(str(tmp_path / "a.png")), cv2.imread(str(tmp_path / "b.png"))
    assert two.shape[1] > 1.5 * one.shape[1]
    blue, orange = np.array([0xEB, 0x63, 0x25]), np.array([0x06, 0x77, 0xD9])
    half = two.shape[1] // 2
    for colour, part in ((blue, two[:, :half]), (blue, two[:, half:]), (orange, two[:, half:])):
        assert (np.abs(part.astype(int) - colour).max(axis=2) < 8).sum() > 20


def test_a_loss_that_is_alone_is_a_point(tmp_path: Path):
    draw_curves({"loss": [[4, 0.5]], "scores": []}, tmp_path / "a.png")
    difference = cv2.imread(str(tmp_path / "a.png")).astype(int) - [0xEB, 0x63, 0x25]
    assert (np.abs(difference).max(axis=2) < 8).sum() > 10


def test_the_log_says_by_what_a_checkpoint_was_read(tmp_path: Path, caplog):
    register_safe_loading()
    torch.save({"state_dict": {"weight": torch.ones(1)}}, tmp_path / "a.pth")
    logger = logging.getLogger("reading")
    with caplog.at_level(logging.INFO, "reading"):
        CheckpointLoader.load_checkpoint(str(tmp_path / "a.pth"), logger=logger)
    assert caplog.messages == [
        f"Loads checkpoint by safe_reader backend from path: {tmp_path}/a.pth"
    ]


def diverge(hook: DivergenceHook, losses: list[float]) -> None:
    for step, loss in enumerate(losses):
        outputs = {"loss": torch.tensor(loss), "loss_cls": torch.tensor([1.0, loss]), "acc": 0.5}
        hook.after_train_iter(runner_in(Path("."), iter=step), step, outputs=outputs)


def test_some_losses_in_a_row_that_are_no_numbers_end_a_run():
    with pytest.raises(DivergedError, match="3 iterations in a row up to 4, first in iteration 2"):
        diverge(DivergenceHook(patience=3), [1.0, math.nan, math.inf, math.nan])


def test_single_losses_that_are_no_numbers_do_not():
    diverge(DivergenceHook(patience=2), [math.nan, 1.0, math.inf, 2.0])


def test_weights_that_are_no_numbers_are_not_saved_whatever_the_loss_was():
    hook = DivergenceHook()
    good, counts = torch.ones(2), torch.tensor(3)
    for bad in (math.nan, math.inf):
        spoilt = {
            "a": good,
            "counts": counts,
            "b": torch.tensor([1.0, bad]),
            "c": torch.tensor(bad),
        }
        with pytest.raises(DivergedError, match="after iteration 2, .* in b and 1 others; a lower"):
            hook.before_save_checkpoint(runner_in(Path("."), iter=1), {"state_dict": spoilt})
    diverge(hook, [1.0, math.nan])
    with pytest.raises(DivergedError, match="not finite first in iteration 2 in loss_cls"):
        hook.before_save_checkpoint(runner_in(Path("."), iter=1), {"state_dict": spoilt})
    # A step that the loss scaling has skipped leaves good weights.
    hook.before_save_checkpoint(runner_in(Path("."), iter=1), {"state_dict": {"a": good}})


@pytest.mark.parametrize(
    ("iteration", "epoch", "scored", "resumes", "expected"),
    [
        (8, 2, [], True, True),
        (8, 2, [4], True, True),
        (8, 2, [8], True, False),
        (8, 2, [], False, False),
        (9, 2, [], True, False),  # in the middle of an epoch
        (12, 3, [], True, False),  # every second epoch is evaluated
        (20, 5, [], True, True),  # and the last one
    ],
)
def test_an_evaluation_that_a_stop_cut_off_is_made_up_for(
    iteration: int, epoch: int, scored: list[int], resumes: bool, expected: bool, tmp_path: Path
):
    made: list[int] = []
    loop = SimpleNamespace(iter=iteration, epoch=epoch, max_epochs=5, val_begin=1, val_interval=2)
    loop.dataloader, loop._decide_current_val_interval = range(4), lambda: None
    evaluation = SimpleNamespace(run=lambda: made.append(iteration))
    runner = runner_in(tmp_path, iter=iteration, max_iters=20, _resume=resumes)
    runner.train_loop, runner.val_loop, runner.logger.info = loop, evaluation, lambda text: None
    records = RecordsHook()
    records.history["scores"] = [[step, {"bbox_mAP": 0.5}] for step in scored]
    MissedEvaluationHook(records).before_train(runner)
    assert made == [iteration] * expected


def test_random_numbers_depend_on_seed_step_and_rank_alone():
    hook = StepSeedHook()

    def draw(*, seed: int = 1, rank: int = 0, step: int = 5) -> tuple[float, ...]:
        runner = runner_in(Path("."), seed=seed, rank=rank, iter=step)
        hook.before_train_iter(runner, step)
        model = torch.rand(()).item()
        hook.after_train_iter(runner, step)
        return model, random.random(), np.random.random(), torch.rand(()).item()

    first = draw()
    assert draw() == first
    others = [draw(seed=2), draw(rank=1), draw(step=6)]
    numbers = {*first, *(number for other in others for number in other)}
    assert len(numbers) == 16
    # What is loaded next is what a run that goes on at the next step loads first.
    hook.before_train(runner_in(Path("."), seed=1, iter=6))
    assert (random.random(), np.random.random(), torch.rand(()).item()) == first[1:]


def test_a_cpu_computes_the_backbone_in_bfloat16_and_the_rest_in_float32():
    seen = {}

    class Backbone(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            seen["inside"] = (x @ x).dtype
            return (x @ x, x)

    model = nn.Module()
    model.backbone = Backbone()
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    with HostAmpOptimWrapper(optimizer=optimizer).optim_context(model):
        maps = model.backbone(torch.ones(2, 2))
        outside = (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
    assert seen["inside"] == torch.bfloat16
    assert {x.dtype for x in maps} == {outside} == {torch.float32}
    assert "forward" not in vars(model.backbone)


@pytest.mark.parametrize(
    "text",
    [
        "optimizer = dict(type='SGD')\noptim_wrapper = dict(optimizer=optimizer)",
        "data_root = 'x/'\ntrain_pipeline = [dict(type='PackDetInputs')]",
        "img_norm_cfg = dict(mean=[0])",
        "_base_ = 'x.py'\nmodel = dict(type='X')",
    ],
)
def test_configs_of_today_are_not_taken_for_old_ones(tmp_path: Path, text: str):
    path = tmp_path / "c.py"
    path.write_text(text)
    check_generation(path)


@pytest.mark.parametrize(("test_mode", "part"), [(False, "train"), (True, "val")])
def test_a_data_set_without_images_is_refused_and_named(test_mode: bool, part: str):
    empty = EmptySet()
    empty.test_mode = test_mode
    message = rf"{part}_dataloader.dataset, got none: .* \(cat, ...\)"
    with pytest.raises(ValueError, match=message):
        require_images(empty)
    require_images([1])


WORKER = "Caught {0} in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (KeyError("'X is not in the mmdet::model registry'"), "X is not in the mmdet::model"),
        (TypeError("X.__init__() got an unexpected keyword argument 'y'"), "argument 'y'"),
        (AssertionError(WORKER + "AssertionError: failed to load image: a.jpg"), "error: failed"),
        (
            FileNotFoundError(WORKER + "FileNotFoundError: [Errno 2] No such file: 'a.jpg'"),
            "error: [Errno 2] No such file: 'a.jpg'",
        ),
        (DivergedError("expected a finite loss"), "error: expected a finite loss"),
    ],
)
@pytest.mark.usefixtures("signals_and_warnings_as_before")
def test_mistakes_of_configs_and_files_are_one_line(error: Exception, line: str, capsys):
    def script() -> None:
        raise error

    assert run_script("x.py", script) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("x.py: error: ")
    assert line in said
    assert "Traceback" not in said


@pytest.mark.parametrize("error", [KeyError("x"), TypeError("x"), RuntimeError("x")])
@pytest.mark.usefixtures("signals_and_warnings_as_before")
def test_faults_of_the_program_are_not_taken_for_mistakes(error: Exception):
    def script() -> None:
        raise error

    with pytest.raises(type(error)):
        run_script("x.py", script)


class EmptySet:
    metainfo = {"classes": ("cat",)}

    def __len__(self) -> int:
        return 0
