"""States that are kept, pruned, read back, and compared with the settings to go on with."""

import io
import os
import resource
import signal
from pathlib import Path

import pytest
import torch

from classification.checkpoint import (
    KEYS,
    MAY_CHANGE,
    check_same_run,
    list_checkpoints,
    load_state,
    prune_checkpoints,
    save_state,
)
from classification.config import flatten, get_default_config
from classification.distributed import StoppedError


def state(**values: object) -> dict[str, object]:
    return {key: values.get(key) for key in KEYS}


def test_a_state_comes_back_as_it_was(tmp_path: Path):
    saved = state(
        model={"weight": torch.randn(3)}, epochs_done=7, rows=[{"epoch": 1, "top1": 99.5}]
    )
    save_state(tmp_path / "ckpt_epoch_1.pth", saved)
    loaded = load_state(tmp_path / "ckpt_epoch_1.pth")
    assert torch.equal(loaded["model"].pop("weight"), saved["model"].pop("weight"))
    assert loaded == saved


def test_a_state_outlives_its_file(tmp_path: Path):
    path = tmp_path / "ckpt_epoch_1.pth"
    save_state(path, state(model={"weight": torch.ones(1000)}))
    loaded = load_state(path)
    path.write_bytes(b"")
    assert loaded["model"]["weight"].sum() == 1000


def test_a_write_that_breaks_off_gives_its_reason_and_leaves_the_file(tmp_path: Path):
    path = tmp_path / "ckpt_epoch_1.pth"
    save_state(path, state(epochs_done=1))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))  # bytes
    try:
        with pytest.raises(OSError, match="File too large"):
            save_state(path, state(model={"weight": torch.ones(1_000_000)}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert load_state(path)["epochs_done"] == 1
    assert os.listdir(tmp_path) == [path.name]


def test_a_signal_in_the_middle_of_a_write_stops_the_run(tmp_path: Path, monkeypatch):
    class Stream(io.BytesIO):
        def write(self, data: bytes) -> int:
            raise StoppedError(signal.SIGINT)

    monkeypatch.setattr(Path, "open", lambda *_: Stream())
    with pytest.raises(StoppedError, match="stopped by SIGINT"):
        save_state(tmp_path / "ckpt_epoch_1.pth", state(model={"weight": torch.ones(9)}))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("num_kept", [1, 3, 9])
def test_the_newest_checkpoints_are_kept_and_others_are_not_touched(tmp_path: Path, num_kept: int):
    others = [tmp_path / name for name in ("ckpt_epoch_2.pth", "ckpt_epoch_best.pth", "notes.txt")]
    own = [tmp_path / f"ckpt_epoch_{epoch}.pth" for epoch in (8, 9, 10, 11, 12)]
    for path in (*others, *own):
        path.touch()
    kept = list(own)
    prune_checkpoints(kept, num_kept=num_kept)
    assert kept == own[-num_kept:]
    assert set(tmp_path.iterdir()) == {*others, *kept}


def test_checkpoints_are_listed_by_epoch_whatever_their_age(tmp_path: Path):
    for epoch in (10, 9, 100):
        (tmp_path / f"ckpt_epoch_{epoch}.pth").touch()
    (tmp_path / "ckpt_epoch_best.pth").touch()
    names = [path.name for path in list_checkpoints(tmp_path)]
    assert names == ["ckpt_epoch_9.pth", "ckpt_epoch_10.pth", "ckpt_epoch_100.pth"]


def test_files_that_cannot_be_resumed_are_one_clear_error(tmp_path: Path):
    whole = tmp_path / "ckpt_epoch_1.pth"
    save_state(whole, state(model={"w": torch.zeros(1000)}))
    contents = {
        "truncated.pth": (
            whole.read_bytes()[:-200],
            "expected a whole checkpoint, got .*truncated",
        ),
        "empty.pth": (b"", "expected a checkpoint, got the empty file .*empty.pth"),
        "text.pth": (b"not a checkpoint", "expected a checkpoint .*text.pth, which starts with"),
    }
    for name, (content, message) in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=message):
            load_state(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="expected an existing file, got .*nothing.pth"):
        load_state(tmp_path / "nothing.pth")
    torch.save({"model": {}}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"weights\.pth \(weights alone cannot be resumed\)"):
        load_state(tmp_path / "weights.pth")


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path):
    class Attack:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(tmp_path / "attacked"),)

    torch.save(state(rows=Attack()), tmp_path / "attack.pth")
    with pytest.raises(ValueError, match="attack.pth with the pickled object .*mkdir, which will"):
        load_state(tmp_path / "attack.pth")
    assert not (tmp_path / "attacked").exists()


def saved_with(**options: object) -> dict[str, object]:
    return {"config": get_default_config().dump(), "world_size": 2, "steps_per_epoch": 10} | options


def test_a_run_goes_on_with_the_settings_that_it_was_saved_with():
    check_same_run(saved_with(), get_default_config(), world_size=2, steps_per_epoch=10)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("TRAIN.WEIGHT_DECAY", 0.9, "expected TRAIN.WEIGHT_DECAY = 0.05 as in .*, got 0.9"),
        ("DATA.BATCH_SIZE", 64, "expected DATA.BATCH_SIZE = 128 as in .*, got 64"),
        ("MODEL.INTERN_IMAGE.DEPTHS", (1, 2), r"DEPTHS = None as in .*, got \[1, 2\]"),
        ("TRAIN.OPTIMIZER.BETAS", (0.8, 0.9), r"BETAS = \[0.9, 0.999\] as .*, got \[0.8, 0.9\]"),
        ("AUG.MIXUP", 0.0, "expected AUG.MIXUP = 0.8 as in the checkpoint, got 0.0"),
        ("SEED", 1, "expected SEED = 0 as in the checkpoint, got 1"),
    ],
)
def test_a_setting_that_gives_the_state_another_meaning_is_an_error(key, value, message):
    config = get_default_config()
    node, (*groups, leaf) = config, key.split(".")
    for group in groups:
        node = node[group]
    node[leaf] = value
    with pytest.raises(ValueError, match=message):
        check_same_run(saved_with(), config, world_size=2, steps_per_epoch=10)


@pytest.mark.parametrize(
    ("world_size", "steps_per_epoch", "message"),
    [
        (4, 10, "expected ranks = 2 as in the checkpoint, got 4"),
        (2, 11, "expected steps an epoch = 10 as in the checkpoint, got 11"),
    ],
)
def test_other_ranks_or_steps_an_epoch_are_an_error(world_size, steps_per_epoch, message):
    with pytest.raises(ValueError, match=message):
        check_same_run(
            saved_with(),
            get_default_config(),
            world_size=world_size,
            steps_per_epoch=steps_per_epoch,
        )


def test_a_checkpoint_from_before_a_setting_existed_had_its_default():
    saved = get_default_config()
    del saved["SEED"]
    config = get_default_config()
    state = saved_with(config=saved.dump())
    check_same_run(state, config, world_size=2, steps_per_epoch=10)
    config.SEED = 1
    with pytest.raises(ValueError, match="expected SEED = 0"):
        check_same_run(state, config, world_size=2, steps_per_epoch=10)


def test_every_setting_that_may_change_exists():
    assert MAY_CHANGE <= dict(flatten(get_default_config())).keys()
