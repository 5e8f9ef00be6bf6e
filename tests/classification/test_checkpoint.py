"""Files that are whole or absent; checkpoints that are kept, pruned and read back."""

import os
from pathlib import Path

import pytest
import torch

from classification.checkpoint import KEYS, list_checkpoints, load_checkpoint, save_checkpoint
from classification.files import make_run_folder, write_atomically


def state(**values: object) -> dict[str, object]:
    return {key: values.get(key) for key in KEYS}


def test_a_file_is_replaced_as_a_whole(tmp_path: Path):
    path = tmp_path / "file.txt"
    write_atomically(path, lambda file: file.write_text("old"))
    write_atomically(path, lambda file: file.write_text("new"))
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["file.txt"]


def test_a_write_that_fails_leaves_the_old_file_and_no_rest(tmp_path: Path):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def fail_half_way(file: Path) -> None:
        file.write_text("ne")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, fail_half_way)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file.txt"]


def test_a_temporary_file_keeps_the_suffix_that_writers_go_by(tmp_path: Path):
    suffixes = []
    write_atomically(
        tmp_path / "picture.png", lambda file: (suffixes.append(file.suffix), file.touch())
    )
    assert suffixes == [".png"]


def test_a_run_folder_is_made_with_its_parents_and_left_empty(tmp_path: Path):
    folder = make_run_folder(tmp_path / "a" / "b")
    assert folder.is_dir() and not os.listdir(folder)
    assert make_run_folder(folder) == folder


def test_a_run_folder_that_cannot_be_made_is_named(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="expected a writable folder .*file/run, got Not a dir"):
        make_run_folder(tmp_path / "file" / "run")


def test_a_state_comes_back_as_it_was(tmp_path: Path):
    saved = state(model={"weight": torch.randn(3)}, step=7, rows=[{"epoch": 1, "top1": 99.5}])
    save_checkpoint(tmp_path / "ckpt_epoch_1.pth", saved, num_kept=1)
    loaded = load_checkpoint(tmp_path / "ckpt_epoch_1.pth")
    assert torch.equal(loaded["model"].pop("weight"), saved["model"].pop("weight"))
    assert loaded == saved


@pytest.mark.parametrize("num_kept", [1, 3])
def test_the_newest_checkpoints_are_kept(tmp_path: Path, num_kept: int):
    (tmp_path / "model.safetensors").touch()
    for epoch in (8, 9, 10, 11, 12):
        save_checkpoint(tmp_path / f"ckpt_epoch_{epoch}.pth", state(), num_kept=num_kept)
    names = [path.name for path in list_checkpoints(tmp_path)]
    assert names == [f"ckpt_epoch_{epoch}.pth" for epoch in range(13 - num_kept, 13)]
    assert (tmp_path / "model.safetensors").exists()


def test_a_fresh_run_in_a_used_folder_replaces_the_old_checkpoint(tmp_path: Path):
    old = tmp_path / "ckpt_epoch_20.pth"
    save_checkpoint(old, state(), num_kept=1)
    os.utime(old, (0, 0))
    save_checkpoint(tmp_path / "ckpt_epoch_1.pth", state(), num_kept=1)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["ckpt_epoch_1.pth"]


def test_files_that_cannot_be_resumed_are_one_clear_error(tmp_path: Path):
    whole = tmp_path / "ckpt_epoch_1.pth"
    save_checkpoint(whole, state(model={"w": torch.zeros(1000)}), num_kept=1)
    contents = {
        "truncated.pth": whole.read_bytes()[:-200],
        "empty.pth": b"",
        "text.pth": b"not a checkpoint",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"expected a whole checkpoint .*{name}"):
            load_checkpoint(tmp_path / name)
    with pytest.raises(ValueError, match="expected an existing file, got .*nothing.pth"):
        load_checkpoint(tmp_path / "nothing.pth")
    torch.save({"model": {}}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"weights\.pth \(weights alone cannot be resumed\)"):
        load_checkpoint(tmp_path / "weights.pth")


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path):
    class Attack:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(tmp_path / "attacked"),)

    torch.save(state(rows=Attack()), tmp_path / "attack.pth")
    with pytest.raises(ValueError, match="expected a whole checkpoint"):
        load_checkpoint(tmp_path / "attack.pth")
    assert not (tmp_path / "attacked").exists()
