"""A run before its first step: what it goes on from."""

import math
from pathlib import Path

import pytest
import torch

from classification.checkpoint import load_state
from classification.distributed import Ranks
from classification.run import Run, prepare

ONE_RANK = Ranks(0, 1, torch.device("cpu"))


@pytest.fixture
def saved(make_config) -> Path:
    """The checkpoint after the first of three epochs, of two steps each."""
    config = make_config("MODEL.NAME", "saved", *COARSE, "SAVE_CKPT_NUM", 3)
    prepare(config, ONE_RANK).train()
    return Path(config.OUTPUT) / "saved" / "ckpt_epoch_1.pth"


COARSE = ("DATA.BATCH_SIZE", 700, "TRAIN.EPOCHS", 3)


def resumed(make_config, saved: Path, *options: object) -> Run:
    config = make_config("MODEL.NAME", "resumed", "MODEL.RESUME", saved, *COARSE, *options)
    run = prepare(config, ONE_RANK)
    run.train()
    return run


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["TRAIN.WEIGHT_DECAY", 0.9], "expected TRAIN.WEIGHT_DECAY = 0.05 as in the .*, got 0.9"),
        (["DATA.BATCH_SIZE", 350], "expected DATA.BATCH_SIZE = 700 as in the .*, got 350"),
        (["MODEL.ARCH", "internimage_test_s"], "expected MODEL.ARCH = 'internimage_test_t' as in"),
        (["TRAIN.EPOCHS", 1], "expected TRAIN.EPOCHS > epochs of the checkpoint = 1, got 1"),
    ],
)
def test_a_run_does_not_go_on_as_another_one(make_config, saved: Path, options, message):
    with pytest.raises(ValueError, match=message):
        resumed(make_config, saved, *options)
    assert not (saved.parents[1] / "resumed" / "config.yaml").exists()


def test_a_run_does_not_go_on_with_another_number_of_ranks(make_config, saved: Path, tmp_path):
    state = load_state(saved) | {"world_size": 2}
    torch.save(state, tmp_path / "two_ranks.pth")
    with pytest.raises(ValueError, match="expected ranks = 2 as in the checkpoint, got 1"):
        resumed(make_config, tmp_path / "two_ranks.pth")


def test_a_resumed_run_may_last_longer_and_learn_slower(make_config, saved: Path):
    run = resumed(make_config, saved, "TRAIN.EPOCHS", 4, "TRAIN.BASE_LR", 1e-3, "TRAIN.MIN_LR", 0)
    assert [row["step"] for row in run.rows] == [2, 4, 6, 8]
    # The last of eight steps is an eighth of the cosine before its end.
    rate = 1e-3 * 700 / 512 * 0.5 * (1 + math.cos(math.pi * 7 / 8))
    assert run.rows[-1]["learning_rate"] == pytest.approx(rate)
