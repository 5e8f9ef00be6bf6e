"""A run before its first step: what it goes on from."""

import math
from pathlib import Path

import pytest
import torch

from classification.distributed import Ranks
from classification.runs.run import Run, prepare

ONE_RANK = Ranks(0, 1, torch.device("cpu"))


@pytest.fixture
def saved(make_config) -> Path:
    """The checkpoint after the first of three epochs, of two steps each."""
    config = make_config("MODEL.NAME", "saved", *COARSE, "SAVE_CKPT_NUM", 3)
    run = prepare(config, ONE_RANK)
    run.train()
    run.close()
    return Path(config.OUTPUT) / "saved" / "ckpt_epoch_1.pth"


COARSE = ("DATA.BATCH_SIZE", 700, "TRAIN.EPOCHS", 3)


def resumed(make_config, saved: Path, *options: object) -> Run:
    config = make_config("MODEL.NAME", "resumed", "MODEL.RESUME", saved, *COARSE, *options)
    run = prepare(config, ONE_RANK)
    run.train()
    run.close()
    return run


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["TRAIN.WEIGHT_DECAY", 0.9], "expected TRAIN.WEIGHT_DECAY = 0.05 as in the .*, got 0.9"),
        (["MODEL.ARCH", "internimage_test_s"], "expected MODEL.ARCH = 'internimage_test_t' as in"),
        (["TRAIN.EPOCHS", 1], "expected TRAIN.EPOCHS > epochs of the checkpoint = 2, got 1"),
    ],
)
def test_a_run_does_not_go_on_as_another_one(make_config, saved: Path, options, message):
    with pytest.raises(ValueError, match=message):
        resumed(make_config, saved.with_name("ckpt_epoch_2.pth"), *options)
    assert not (saved.parents[1] / "resumed" / "config.yaml").exists()


@pytest.mark.slow
def test_a_run_may_go_on_with_other_batches_at_the_end_of_an_epoch(make_config, saved: Path):
    options = (*COARSE, "DATA.BATCH_SIZE", 350)
    ready = prepare(make_config("MODEL.NAME", "b", "MODEL.RESUME", saved, *options), ONE_RANK)
    assert (ready.engine.epoch, ready.engine.step_in_epoch) == (0, 4)  # nothing of it is left
    ready.close()
    run = resumed(make_config, saved, "DATA.BATCH_SIZE", 350)
    assert [row["step"] for row in run.history.rows] == [
        4,
        8,
        12,
    ]  # the schedule's, of four steps an epoch


@pytest.mark.slow
def test_a_resumed_run_may_last_longer_and_learn_slower(make_config, saved: Path):
    run = resumed(make_config, saved, "TRAIN.EPOCHS", 4, "TRAIN.BASE_LR", 1e-3, "TRAIN.MIN_LR", 0)
    assert [row["step"] for row in run.history.rows] == [2, 4, 6, 8]
    # The last of eight steps is an eighth of the cosine before its end.
    rate = 1e-3 * 700 / 512 * 0.5 * (1 + math.cos(math.pi * 7 / 8))
    assert run.history.rows[-1]["learning_rate"] == pytest.approx(rate)
