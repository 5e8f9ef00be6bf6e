"""The folder of a run: made, and never shared by two runs."""

import os
from pathlib import Path

import pytest
import torch

from classification.distributed import Ranks
from classification.runs.run import prepare
from classification.runs.run_folder import LOCK, lock_run_folder, make_run_folder

ONE_RANK = Ranks(0, 1, torch.device("cpu"))
COARSE = ("DATA.BATCH_SIZE", 700)  # two steps an epoch


def test_a_run_folder_is_made_with_its_parents_and_left_empty(tmp_path: Path):
    folder = make_run_folder(tmp_path / "a" / "b")
    assert folder.is_dir() and not os.listdir(folder)
    assert make_run_folder(folder) == folder


def test_a_run_folder_that_cannot_be_made_is_named(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="expected a writable folder for --output, .*/run, Not"):
        make_run_folder(tmp_path / "file" / "run")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != LOCK}


def train_here(make_config, *options: object) -> None:
    run = prepare(make_config(*COARSE, *options), ONE_RANK)
    run.train()
    run.close()


@pytest.fixture
def used(make_config) -> Path:
    """The folder of a run of three epochs that keeps two checkpoints; and a file of the user's."""
    train_here(make_config, "TRAIN.EPOCHS", 3, "SAVE_CKPT_NUM", 2)
    config = make_config()
    folder = Path(config.OUTPUT) / "small"
    (folder / "notes.txt").write_text("mine")
    return folder


def test_a_second_run_in_a_folder_is_one_line_and_touches_nothing(
    used: Path, exit_code_here, small_yaml: Path, capsys
):
    before = contents(used)
    capsys.readouterr()
    manual = ["--opts", "TRAIN.AUTO_RESUME", False]
    assert exit_code_here("--cfg", small_yaml, "--output", used.parent, *manual) == 2
    printed = capsys.readouterr().err
    assert f"{used}, which holds a run up to epoch 3; " in printed
    assert f"go on with --resume {used}/ckpt_epoch_3.pth, choose another --output" in printed
    assert "pass --overwrite" in printed and printed.count("\n") == 1
    assert contents(used) == before


@pytest.mark.parametrize("name", ["metrics.csv", "model.safetensors", "summary.json"])
def test_a_run_without_checkpoints_is_protected_as_well(make_config, tmp_path: Path, name: str):
    (tmp_path / "out" / "small").mkdir(parents=True)
    (tmp_path / "out" / "small" / name).touch()
    with pytest.raises(ValueError, match=f"which holds {name} of a run; choose another --output"):
        prepare(make_config(*COARSE), ONE_RANK)


def test_a_run_that_broke_off_before_its_first_epoch_is_in_nobodys_way(make_config):
    for _ in range(2):
        run = prepare(make_config(*COARSE), ONE_RANK)
        run.close()
    assert run.engine.step == 0


def test_overwrite_removes_the_files_of_the_run_and_no_other(make_config, used: Path):
    run = prepare(make_config(*COARSE, "TRAIN.EPOCHS", 1), ONE_RANK, overwrite=True)
    assert set(os.listdir(used)) == {"config.yaml", "notes.txt", "log_rank0.txt", LOCK}
    assert "epoch 3/3" not in (used / "log_rank0.txt").read_text()  # the former run's
    run.train()
    run.close()
    assert sorted(path.name for path in used.glob("ckpt_*")) == [
        "ckpt_epoch_1.pth",
        "ckpt_epoch_best.pth",
    ]
    assert (used / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["DATA.BATCH_SIZE", 2000], "expected training images of a rank"),
        (["MODEL.RESUME", "no.pth"], "expected an existing file, got no.pth"),
    ],
)
def test_a_mistake_beside_overwrite_removes_nothing(make_config, used: Path, options, message):
    before = contents(used)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        prepare(make_config(*options), ONE_RANK, overwrite=True)
    assert contents(used) == before  # but for the lock, which the failed process held


def test_a_run_that_still_goes_on_is_not_overwritten(make_config, used: Path, monkeypatch):
    before = contents(used)
    monkeypatch.setattr("classification.runs.run.OVERWRITE_SECONDS", 0.1)
    lock = lock_run_folder(used)
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="in which nobody trains, got"):
        prepare(make_config(*COARSE), ONE_RANK, overwrite=True)
    lock.release()
    assert contents(used) == before


def test_a_checkpoint_to_resume_from_is_not_overwritten(make_config, used: Path):
    before = contents(used)
    config = make_config(*COARSE, "MODEL.RESUME", used / "ckpt_epoch_3.pth")
    with pytest.raises(ValueError, match="expected --resume or --overwrite, got both"):
        prepare(config, ONE_RANK, overwrite=True)
    assert contents(used) == before


@pytest.mark.slow
def test_a_resumed_run_goes_on_in_its_folder_and_keeps_as_many_as_asked(make_config, used: Path):
    options = (*COARSE, "TRAIN.EPOCHS", 4, "SAVE_CKPT_NUM", 2)
    run = prepare(make_config(*options, "MODEL.RESUME", used / "ckpt_epoch_3.pth"), ONE_RANK)
    assert not (used / "summary.json").exists()
    run.train()
    run.close()
    names = {path.name for path in used.glob("ckpt_*")}
    assert names == {"ckpt_epoch_3.pth", "ckpt_epoch_4.pth", "ckpt_epoch_best.pth"}


@pytest.mark.slow
def test_a_run_resumed_from_elsewhere_leaves_that_folder_alone(make_config, used: Path):
    before = contents(used)
    resume = ("MODEL.RESUME", used / "ckpt_epoch_2.pth", "TRAIN.EPOCHS", 3)
    train_here(make_config, *resume, "MODEL.NAME", "b")
    assert contents(used) == before
    names = sorted(path.name for path in (used.parent / "b").glob("ckpt_*"))
    assert names == ["ckpt_epoch_3.pth", "ckpt_epoch_best.pth"]
    (used / "ckpt_epoch_2.pth").rename(used.parent / "away.pth")
    with pytest.raises(ValueError, match="holds a run up to epoch 3"):  # and is no free folder
        prepare(make_config(*COARSE, "MODEL.RESUME", used.parent / "away.pth"), ONE_RANK)
