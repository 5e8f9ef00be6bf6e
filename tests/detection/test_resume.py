"""A run that is stopped goes on as if it had not been: weights, records, damaged files."""

from __future__ import annotations

import json
import os
import re
import shutil
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.runner.loops import _InfiniteDataloaderIterator
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

from internimage.integrations.openmmlab.scripts import train
from internimage.integrations.openmmlab.scripts.safe_loading import read_checkpoint
from internimage.integrations.openmmlab.scripts.saving import (
    GoOnBatchSampler,
    WholeFileBackend,
    skip_steps,
)
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

    # Without a seed in its config, as none that is shipped has one: it is the stopped run's.
    no_seed = ("--cfg-options", "randomness.seed=None")
    resumed = run_script("train.py", *command, "--resume", *no_seed, folder=folder)
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
def test_a_run_stopped_within_its_last_evaluation_keeps_average_and_weights_apart(
    tiny_folder: Path,
):
    (tiny_folder / "average.py").write_text(
        '_base_ = ["tiny.py"]\n'
        "train_cfg = dict(max_epochs=1)\n"
        'custom_hooks = [dict(type="EMAHook", momentum=0.3)]\n'
    )
    command = ("average.py", "--work-dir")
    whole = run_script("train.py", *command, "average", folder=tiny_folder)
    assert whole.code == 0, whole.errors
    # mmengine says so before it saves; what follows is the evaluation.
    stopped = run_script(
        "train.py",
        *(*command, "average_stopped"),
        folder=tiny_folder,
        stop_at="Saving checkpoint at 1 epochs",
    )
    assert stopped.code == 128 + 15, stopped.errors
    expected, found = (
        read_checkpoint(tiny_folder / name)
        for name in ("average/epoch_1.pth", "average_stopped/stopped.pth")
    )
    assert (found["meta"]["epoch"], found["meta"]["iter"]) == (1, 8)
    averages = expected["state_dict"]
    assert not all(
        torch.equal(averages[key], expected["ema_state_dict"][f"module.{key}"]) for key in averages
    )
    for kind in ("state_dict", "ema_state_dict"):
        for key, value in expected[kind].items():
            assert torch.equal(found[kind][key], value), (kind, key)
    assert not (tiny_folder / "average_stopped" / "metrics.json").exists()

    resumed = run_script("train.py", *command, "average_stopped", "--resume", folder=tiny_folder)
    assert resumed.code == 0, resumed.errors
    assert "Epoch(train)" not in resumed.printed
    ours, theirs = (tiny_folder / name for name in ("average_stopped", "average"))
    assert (ours / "metrics.json").read_text() == (theirs / "metrics.json").read_text()
    scores = [json.loads((run / "history.json").read_text())["scores"] for run in (ours, theirs)]
    assert scores[0] == scores[1]
    assert "the run has ended already, after 8 of 8 iterations" in resumed.printed


@pytest.mark.slow
def test_a_first_start_with_resume_starts_from_the_weights_of_the_config(
    trained: tuple[Path, Done],
):
    folder = trained[0].parent
    done = run_script(
        "train.py",
        *("tiny.py", "--work-dir", "first", "--resume", "--no-validate", "--cfg-options"),
        *("load_from=run/epoch_2.pth", "train_cfg.max_epochs=1"),
        # The classifier's weights are of no use then, wherever they have gone.
        "model.backbone.init_cfg=dict(type='Pretrained',checkpoint='gone.pth')",
        "optim_wrapper.optimizer.lr=0.0",  # weights stay as they are
        folder=folder,
    )
    assert done.code == 0, done.errors
    assert "no checkpoint in first, a new run" in done.errors
    assert "init_cfg: gone.pth is not read, run/epoch_2.pth is" in done.printed
    assert len(re.findall(r"Epoch\(train\)", done.printed)) == 8
    expected, found = (weights(folder / path) for path in ("run/epoch_2.pth", "first/epoch_1.pth"))
    assert set(expected) == set(found)
    assert all(torch.equal(expected[key], found[key]) for key in expected)


@pytest.mark.slow
def test_a_run_by_iterations_goes_on_past_a_damaged_checkpoint(trained: tuple[Path, Done]):
    folder = trained[0].parent
    # With the batches of the large detectors; ten steps are more than the eight images.
    (folder / "steps.py").write_text(
        '_base_ = ["tiny.py"]\n'
        'train_cfg = dict(_delete_=True, type="IterBasedTrainLoop", max_iters=10,\n'
        "    val_interval=99)\n"
        'train_dataloader = dict(sampler=dict(type="InfiniteSampler"),\n'
        '    batch_sampler=dict(type="AspectRatioBatchSampler"))\n'
        "default_hooks = dict(checkpoint=dict(by_epoch=False, interval=9, max_keep_ckpts=9))\n"
        "log_processor = dict(by_epoch=False)\n"
    )
    run = ("steps.py", "--work-dir", "steps", "--no-validate")
    whole = run_script("train.py", *run, folder=folder)
    assert whole.code == 0, whole.errors
    expected = weights(folder / "steps" / "iter_10.pth")
    # As a full disk leaves it: the newest file cut short, the note of its name of other bytes.
    with (folder / "steps" / "iter_10.pth").open("r+b") as file:
        file.truncate(100_000)
    (folder / "steps" / "last_checkpoint").write_bytes(b"\xff\x00")
    no_seed = ("--cfg-options", "randomness.seed=None")
    resumed = run_script("train.py", *run, "--resume", *no_seed, folder=folder)
    assert resumed.code == 0, resumed.errors
    assert "steps/iter_10.pth is damaged and left alone" in resumed.printed
    assert "loads and discards" not in resumed.printed  # mmengine's word for a slow start
    assert len(re.findall(r"Iter\(train\)", resumed.printed)) == 1
    found = weights(folder / "steps" / "iter_10.pth")
    assert all(torch.equal(expected[key], found[key]) for key in expected)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [InfiniteSampler, DefaultSampler])
def test_a_run_by_iterations_skips_indices_and_loads_no_image(kind: type):
    class Images:
        def __len__(self) -> int:
            return 7

        def __getitem__(self, index: int) -> int:
            loaded.append(index)
            return index

    def loop_at(iteration: int) -> Any:
        batches = GoOnBatchSampler(kind(Images(), seed=3), batch_size=2)
        iterator = _InfiniteDataloaderIterator(DataLoader(Images(), batch_sampler=batches))
        return SimpleNamespace(iter=iteration, dataloader_iterator=iterator), batches

    loaded: list[int] = []
    loop, _ = loop_at(0)
    expected = [next(loop.dataloader_iterator).tolist() for _ in range(10)]
    loaded.clear()
    for done in (3, 4, 9):
        loop, batches = loop_at(done)
        skip_steps(loop, batches)
        loop.dataloader_iterator.skip_iter(done)
        found = [next(loop.dataloader_iterator).tolist() for _ in range(10 - done)]
        assert found == expected[done:]
    assert sorted(loaded) == sorted(sum(expected[3:] + expected[4:] + expected[9:], []))


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


@pytest.mark.parametrize("given", [None, 5])
def test_a_run_goes_on_with_its_own_seed_from_the_start(given: int | None, tmp_path: Path):
    # The samplers are made before mmengine looks into the checkpoint.
    start = tmp_path / "epoch_1.pth"
    torch.save({"meta": {"seed": 7}, "state_dict": {"a": torch.zeros(1)}}, start)
    config = Config({"resume": True, "load_from": None, "work_dir": str(tmp_path)})
    config.randomness = {"seed": given}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train._choose_start(config, from_work_dir=True)
    assert config.load_from == str(start)
    assert config.randomness.seed == 7
    said = [str(warning.message) for warning in caught]
    assert said == ([] if given is None else [f"the seed 5 has no effect: {start} goes on with 7"])


@pytest.mark.parametrize("is_first", [True, False])
def test_what_the_first_rank_cannot_read_ends_all_of_them(
    is_first: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    sent = []

    def unreadable(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    def broadcast(answer: list[Any]) -> None:
        if is_first:
            sent.append(list(answer))
        else:
            answer[:] = [None, [], None, "[Errno 13] Permission denied"]

    monkeypatch.setattr(train, "find_newest", unreadable)
    monkeypatch.setattr(train, "is_main_process", lambda: is_first)
    monkeypatch.setattr(train, "broadcast_object_list", broadcast)
    config = Config({"resume": True, "load_from": None, "work_dir": str(tmp_path)})
    with pytest.raises(ValueError, match="Permission denied"):
        train._choose_start(config, from_work_dir=True)
    assert len(sent) == is_first
