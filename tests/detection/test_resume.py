"""A run that is stopped goes on as if it had not been: weights, records, damaged files."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
from torch.utils.data import BatchSampler, SequentialSampler

from internimage.integrations.openmmlab.scripts.safe_loading import read_checkpoint
from internimage.integrations.openmmlab.scripts.saving import GoOnBatchSampler, WholeFileBackend
from internimage.integrations.openmmlab.scripts.work_dir import find_newest
from tests.detection.script_runs import Done, run_script


def weights(path: Path) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in read_checkpoint(path)["state_dict"].items()}


@pytest.mark.slow
def test_a_run_stopped_within_an_epoch_goes_on_bit_by_bit(trained: tuple[Path, Done]):
    unbroken, _ = trained
    folder = unbroken.parent
    command = ("tiny.py", "--work-dir", "stopped")
    stopped = run_script("train.py", *command, folder=folder, stop_at="[2][3/8]")
    assert stopped.code == 128 + 15
    (line,) = [line for line in stopped.errors.splitlines() if "SIGTERM" in line]
    assert line.startswith("train.py: stopped by SIGTERM; stopped/stopped.pth is kept")
    done = read_checkpoint(folder / "stopped" / "stopped.pth")["meta"]["iter"]
    assert 8 < done < 16

    resumed = run_script("train.py", *command, "--resume", folder=folder)
    assert resumed.code == 0, resumed.errors
    assert len(re.findall(r"Epoch\(train\)", resumed.printed)) == 16 - done
    expected, found = (weights(path / "epoch_2.pth") for path in (unbroken, folder / "stopped"))
    assert set(expected) == set(found)
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    whole, parts = (
        json.loads((path / "history.json").read_text()) for path in (unbroken, folder / "stopped")
    )
    assert parts["scores"] == whole["scores"]
    assert parts["loss"][-1][0] == whole["loss"][-1][0] == 16
    assert (folder / "stopped" / "metrics.json").read_text() == (
        unbroken / "metrics.json"
    ).read_text()


@pytest.mark.slow
def test_a_run_by_iterations_goes_on_past_a_damaged_checkpoint(trained: tuple[Path, Done]):
    folder = trained[0].parent
    (folder / "steps.py").write_text(
        '_base_ = ["tiny.py"]\n'
        'train_cfg = dict(_delete_=True, type="IterBasedTrainLoop", max_iters=4, val_interval=9)\n'
        'train_dataloader = dict(sampler=dict(type="InfiniteSampler"))\n'
        "default_hooks = dict(checkpoint=dict(by_epoch=False, interval=2, max_keep_ckpts=9))\n"
    )
    whole = run_script("train.py", "steps.py", "--work-dir", "steps", folder=folder)
    assert whole.code == 0, whole.errors
    expected = weights(folder / "steps" / "iter_4.pth")
    # As a full disk leaves it: the newest file cut short, the note of its name empty.
    with (folder / "steps" / "iter_4.pth").open("r+b") as file:
        file.truncate(100_000)
    (folder / "steps" / "last_checkpoint").write_text("")
    resumed = run_script("train.py", "steps.py", "--work-dir", "steps", "--resume", folder=folder)
    assert resumed.code == 0, resumed.errors
    assert "steps/iter_4.pth is damaged and left alone" in resumed.printed
    found = weights(folder / "steps" / "iter_4.pth")
    assert all(torch.equal(expected[key], found[key]) for key in expected)


def test_the_newest_whole_checkpoint_is_found_wherever_the_folder_is(
    trained: tuple[Path, Done], tmp_path: Path
):
    moved = tmp_path / "moved"
    moved.mkdir()
    for index, name in enumerate(("epoch_2.pth", "epoch_1.pth", "best_coco_bbox.pth")):
        shutil.copy(trained[0] / "epoch_1.pth", moved / name)
        os.utime(moved / name, (1000 + index, 1000 + index))
    # Without the note the youngest counts; the best one is no end of a run.
    assert find_newest(moved) == (moved / "epoch_1.pth", [])
    (moved / "last_checkpoint").write_text("/where/it/was/epoch_2.pth")
    assert find_newest(moved) == (moved / "epoch_2.pth", [])
    (moved / "epoch_2.pth").write_bytes(b"PK")
    assert find_newest(moved) == (moved / "epoch_1.pth", [moved / "epoch_2.pth"])
    (moved / "epoch_1.pth").unlink()
    assert find_newest(moved) == (None, [moved / "epoch_2.pth"])


def test_an_epoch_goes_on_at_the_batch_after_the_last_and_the_next_is_whole():
    batches = GoOnBatchSampler(SequentialSampler(range(10)), batch_size=3)
    batches.num_done = 2
    assert list(batches) == [[6, 7, 8], [9]]
    assert list(batches) == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]
    assert len(batches) == 4


def test_the_batches_of_another_sampler_are_kept():
    batches = GoOnBatchSampler(
        SequentialSampler(range(10)),
        batch_size=3,
        batches={"type": BatchSampler, "drop_last": True},
    )
    assert list(batches) == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]


def test_a_checkpoint_is_whole_or_absent_and_the_old_one_goes_last(tmp_path: Path, monkeypatch):
    backend, other = WholeFileBackend(), WholeFileBackend()  # mmengine makes one a call
    old, new = tmp_path / "1.pth", tmp_path / "2.pth"
    backend.put(b"old", old)
    backend.remove(old)
    assert old.read_bytes() == b"old"

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match="No space left"):
            other.put(b"new", new)
    assert [path.name for path in tmp_path.iterdir()] == ["1.pth"]
    other.put(b"new", new)
    assert [path.name for path in tmp_path.iterdir()] == ["2.pth"]
