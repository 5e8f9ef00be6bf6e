"""States that are kept, pruned, read back, and compared with the settings to go on with."""

import io
import os
import resource
import signal
from pathlib import Path

import pytest
import torch
from yacs.config import CfgNode

from classification.config import flatten, get_default_config
from classification.runs.checkpoint import (
    BEST,
    KEYS,
    MAY_CHANGE,
    MAY_CHANGE_BETWEEN_EPOCHS,
    check_same_run,
    checkpoint_name,
    keep_as_best,
    list_checkpoints,
    load_state,
    needs_end_of_epoch,
    newest_valid,
    place_in,
    place_of,
    prune_checkpoints,
    save_state,
)
from internimage.processes import StoppedError


def state(**values: object) -> dict[str, object]:
    return {key: values.get(key) for key in KEYS}


def test_a_state_comes_back_as_it_was(tmp_path: Path):
    saved = state(model={"weight": torch.randn(3)}, epoch=7, rows=[{"epoch": 1, "top1": 99.5}])
    save_state(tmp_path / "ckpt_epoch_1.pth", saved)
    loaded = load_state(tmp_path / "ckpt_epoch_1.pth")
    assert torch.equal(loaded["model"].pop("weight"), saved["model"].pop("weight"))
    assert loaded == saved


def test_a_state_outlives_a_file_that_is_removed_or_replaced(tmp_path: Path):
    path = tmp_path / "ckpt_epoch_1.pth"
    save_state(path, state(model={"weight": torch.ones(1000)}))
    loaded = load_state(path)
    save_state(path, state(model={"weight": torch.zeros(1000)}))
    path.unlink()
    assert loaded["model"]["weight"].sum() == 1000


def test_a_write_that_breaks_off_gives_its_reason_and_leaves_the_file(tmp_path: Path):
    path = tmp_path / "ckpt_epoch_1.pth"
    save_state(path, state(epoch=1))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))  # bytes
    try:
        with pytest.raises(OSError, match="File too large"):
            save_state(path, state(model={"weight": torch.ones(1_000_000)}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert load_state(path)["epoch"] == 1
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
    others = [tmp_path / name for name in ("ckpt_epoch_2.pth", BEST, "notes.txt")]
    own = [tmp_path / f"ckpt_epoch_{epoch}.pth" for epoch in (8, 9, 10, 11, 12)]
    for path in (*others, *own):
        path.touch()
    kept = list(own)
    prune_checkpoints(kept, num_kept=num_kept)
    assert kept == own[-num_kept:]
    assert set(tmp_path.iterdir()) == {*others, *kept}


def test_the_newest_end_of_an_epoch_stays_beside_the_steps_behind_it(tmp_path: Path):
    names = ["ckpt_epoch_1.pth", "ckpt_epoch_2.pth", *(checkpoint_name(3, k) for k in (5, 10, 15))]
    kept = [tmp_path / name for name in names]
    for path in kept:
        path.touch()
    prune_checkpoints(kept, num_kept=2)
    expected = ["ckpt_epoch_2.pth", "ckpt_epoch_3_step_10.pth", "ckpt_epoch_3_step_15.pth"]
    assert [path.name for path in kept] == expected
    assert {path.name for path in tmp_path.iterdir()} == set(expected)


def test_checkpoints_are_listed_by_their_place_whatever_their_age(tmp_path: Path):
    in_order = [
        *("ckpt_epoch_9.pth", "ckpt_epoch_10_step_2.pth", "ckpt_epoch_10_step_11.pth"),
        *("ckpt_epoch_10.pth", "ckpt_epoch_100.pth"),
    ]
    for name in (*sorted(in_order), BEST, "ckpt_epoch_x.pth"):
        (tmp_path / name).touch()
    assert [path.name for path in list_checkpoints(tmp_path)] == in_order
    assert [str(place_of(Path(name))) for name in in_order[:2]] == ["epoch 9", "epoch 10, step 2"]


def test_the_best_checkpoint_outlives_its_epoch(tmp_path: Path):
    epoch = tmp_path / "ckpt_epoch_1.pth"
    save_state(epoch, state(epoch=1))
    (tmp_path / BEST).write_bytes(b"a worse one")
    keep_as_best(epoch)
    assert (tmp_path / BEST).stat().st_ino == epoch.stat().st_ino  # no copy of many gigabytes
    epoch.unlink()
    assert load_state(tmp_path / BEST)["epoch"] == 1


def test_the_best_checkpoint_is_copied_where_there_are_no_hard_links(tmp_path: Path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    save_state(tmp_path / "ckpt_epoch_1.pth", state(epoch=1))
    keep_as_best(tmp_path / "ckpt_epoch_1.pth")
    assert load_state(tmp_path / BEST)["epoch"] == 1


def flip_a_byte_of_a_tensor(path: Path) -> None:
    content = bytearray(path.read_bytes())
    position = content.index(torch.full((1000,), 0.25).numpy().tobytes())
    content[position + 1234] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-200]),
        lambda path: path.write_bytes(path.read_bytes()[:100]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(bytes(path.stat().st_size)),
        flip_a_byte_of_a_tensor,
    ],
)
def test_a_damaged_checkpoint_is_skipped_with_a_warning(tmp_path: Path, damage):
    paths = [tmp_path / f"ckpt_epoch_{epoch}.pth" for epoch in (1, 2, 3)]
    for path in paths:
        save_state(path, state(model={"weight": torch.full((1000,), 0.25)}))
    damage(paths[2])
    with pytest.warns(UserWarning, match="a damaged checkpoint is skipped: .*ckpt_epoch_3.pth"):
        assert newest_valid(paths) == paths[1]
    damage(paths[1])
    damage(paths[0])
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="got only damaged ones in"):
        newest_valid(paths)


def test_of_no_checkpoints_none_is_the_newest():
    assert newest_valid([]) is None


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


def saved_with(*, step: int = 10, **options: object) -> dict[str, object]:
    place = {"epoch": 4, "step_in_epoch": step, "steps_per_epoch": 10, "ranks": [{}, {}]}
    return {"config": get_default_config().dump()} | place | options


def config_with(key: str, value: object) -> CfgNode:
    config = get_default_config()
    node, (*groups, leaf) = config, key.split(".")
    for group in groups:
        node = node[group]
    node[leaf] = value
    return config


def test_a_run_goes_on_with_the_settings_that_it_was_saved_with():
    check_same_run(saved_with(), get_default_config())


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("TRAIN.WEIGHT_DECAY", 0.9, "expected TRAIN.WEIGHT_DECAY = 0.05 as in .*, got 0.9"),
        ("MODEL.INTERN_IMAGE.DEPTHS", (1, 2), r"DEPTHS = None as in .*, got \[1, 2\]"),
        ("TRAIN.OPTIMIZER.BETAS", (0.8, 0.9), r"BETAS = \[0.9, 0.999\] as .*, got \[0.8, 0.9\]"),
        ("AUG.MIXUP", 0.0, "expected AUG.MIXUP = 0.8 as in the checkpoint, got 0.0"),
        ("SEED", 1, "expected SEED = 0 as in the checkpoint, got 1"),
        ("AMP_TYPE", "bfloat16", "expected AMP_TYPE = 'float16' as in the checkpoint"),
    ],
)
def test_a_setting_that_gives_the_state_another_meaning_is_an_error(key, value, message):
    with pytest.raises(ValueError, match=message):
        check_same_run(saved_with(), config_with(key, value))


@pytest.mark.parametrize(
    ("config", "world_size", "reason"),
    [
        (get_default_config(), 4, "made within an epoch, when ranks was 2 and is 4"),
        (config_with("DATA.BATCH_SIZE", 64), 2, "DATA.BATCH_SIZE was 128 and is 64"),
        (config_with("TRAIN.ACCUMULATION_STEPS", 2), 2, "ACCUMULATION_STEPS was 1 and is 2"),
    ],
)
def test_ranks_and_batches_may_change_between_epochs_alone(config, world_size: int, reason: str):
    check_same_run(saved_with(), config)
    assert needs_end_of_epoch(saved_with(), config, world_size=world_size) == ""
    assert reason in needs_end_of_epoch(saved_with(step=3), config, world_size=world_size)
    assert needs_end_of_epoch(saved_with(step=3), get_default_config(), world_size=2) == ""


def test_the_place_of_a_state_is_in_the_state_and_not_in_a_name():
    assert str(place_in(saved_with(step=3))) == "epoch 5, step 3"
    assert place_in(saved_with()) == place_of(Path("ckpt_epoch_5.pth"))


def test_a_checkpoint_from_before_a_setting_existed_had_its_default():
    saved = get_default_config()
    del saved["SEED"]
    state = saved_with(config=saved.dump())
    check_same_run(state, get_default_config())
    with pytest.raises(ValueError, match="expected SEED = 0"):
        check_same_run(state, config_with("SEED", 1))


def test_a_disk_that_does_not_answer_says_nothing_of_the_checkpoint(tmp_path: Path, monkeypatch):
    path = tmp_path / "ckpt_epoch_1.pth"
    save_state(path, state())

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("zipfile.ZipFile.testzip", fail)
    with pytest.raises(OSError, match="Input/output error"):
        newest_valid([path])


def test_every_setting_that_may_change_exists():
    assert MAY_CHANGE | MAY_CHANGE_BETWEEN_EPOCHS <= dict(flatten(get_default_config())).keys()
