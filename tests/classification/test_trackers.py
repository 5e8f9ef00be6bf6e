"""Figures reach TensorBoard and Weights & Biases, and go on where a run broke off."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from classification.config import get_default_config
from classification.distributed import Ranks
from classification.runs.run import prepare
from classification.runs.trackers import open_tracker

COARSE = ("DATA.BATCH_SIZE", 700, "TRAIN.EPOCHS", 3, "PRINT_FREQ", 1, "LOGGER", "tensorboard")


def scalars(folder: Path) -> dict[str, list[int]]:
    """Steps of each figure, as TensorBoard itself reads them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return {tag: [event.step for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.mark.slow
def test_a_run_and_its_continuation_are_one_curve_in_tensorboard(make_config):
    ranks = Ranks(0, 1, torch.device("cpu"))
    run = prepare(make_config(*COARSE, "SAVE_CKPT_NUM", 9), ranks)
    run.train()
    run.close()
    (run.folder / "summary.json").unlink()
    for number in (2, 3):  # as if it had been killed in the second epoch
        (run.folder / f"ckpt_epoch_{number}.pth").unlink()
    resumed = prepare(make_config(*COARSE), ranks)
    resumed.train()
    resumed.close()
    found = scalars(run.folder)
    assert found["train/loss"] == [1, 2, 3, 4, 5, 6]
    assert found["epoch/top1"] == [2, 2, 4, 6]  # the first epoch's evaluation is done again


def test_wandb_gets_the_settings_and_the_figures(tmp_path: Path, monkeypatch):
    calls: list = []
    run = SimpleNamespace(
        log=lambda values, step: calls.append((values, step)), finish=lambda: calls.append("end")
    )
    fake = SimpleNamespace(init=lambda **options: calls.append(options) or run)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    config = get_default_config()
    config.LOGGER, config.MODEL.NAME = "wandb", "small"
    tracker = open_tracker(config, tmp_path, first_step=0)
    tracker.log({"train/loss": 1.5}, 7)
    tracker.close()
    options, logged, end = calls
    assert (options["name"], options["resume"], options["dir"]) == ("small", "allow", str(tmp_path))
    assert options["config"]["TRAIN"]["EPOCHS"] == 300
    assert (logged, end) == (({"train/loss": 1.5}, 7), "end")


def test_wandb_has_an_id_of_its_own_for_each_run(tmp_path: Path, monkeypatch):
    ids: list[str] = []
    fake = SimpleNamespace(init=lambda **options: ids.append(options["id"]))
    monkeypatch.setitem(sys.modules, "wandb", fake)
    config = get_default_config()
    config.LOGGER = "wandb"
    for folder, first_step in [("a", 0), ("a", 7), ("a", 0), ("b", 0), ("b", 3), ("c", 9)]:
        (tmp_path / folder).mkdir(exist_ok=True)
        open_tracker(config, tmp_path / folder, first_step=first_step)
    first, continued, anew, other, other_continued, resumed_elsewhere = ids
    assert continued == first and other_continued == other
    assert len({first, anew, other, resumed_elsewhere}) == 4


@pytest.mark.parametrize("logger", ["tensorboard", "wandb"])
def test_a_missing_package_is_named_with_the_command(tmp_path: Path, monkeypatch, logger: str):
    for name in ("tensorboard", "wandb", "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, name, None)
    config = get_default_config()
    config.LOGGER = logger
    with pytest.raises(ValueError, match=f"pip install {logger}, or choose LOGGER none"):
        open_tracker(config, tmp_path, first_step=0)
