"""A file is written whole or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import internimage
from internimage import checkpoint_file
from internimage.files import write_atomically
from internimage.image import save_image
from tests.disks import files_of_at_most


def test_the_content_replaces_the_old_and_nothing_else_stays(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("old")
    given = []

    def write(file: Path) -> None:
        given.append(file)
        file.write_text("new")

    write_atomically(path, write)
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]
    assert given[0] != path
    assert (given[0].parent, given[0].suffix) == (path.parent, path.suffix)


def test_a_failed_write_leaves_the_old_content(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("old")

    def write(file: Path) -> None:
        file.write_text("ne")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, write)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_an_error_that_names_the_file(tmp_path):
    path = tmp_path / "notes.txt"
    with pytest.raises(OSError) as caught, files_of_at_most(1024):
        write_atomically(path, lambda file: file.write_text("new" * 1000))
    assert str(path) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".tif"])
def test_an_image_is_not_cut_where_the_disk_is_full(suffix, tmp_path):
    path = tmp_path / f"noise{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    image = Image.fromarray(noise).convert("RGB")
    with pytest.raises(OSError), files_of_at_most(1024):
        write_atomically(path, lambda file: save_image(image, file))
    assert list(tmp_path.iterdir()) == []
    write_atomically(path, lambda file: save_image(image, file))
    with Image.open(path) as read:
        assert abs(np.asarray(read).astype(int) - noise[..., None]).mean() < 10  # JPEG changes it


def test_content_and_name_are_flushed_before_the_end(tmp_path, monkeypatch):
    path = tmp_path / "notes.txt"
    flushed = []
    flush = os.fsync

    def fsync(descriptor: int) -> None:
        flushed.append(("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file",
                        path.exists()))  # fmt: skip
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    write_atomically(path, lambda file: file.write_text("new"))
    assert flushed == [("file", False), ("folder", True)]


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".txt"])
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_the_mode_is_that_of_any_new_file(suffix, umask, tmp_path, monkeypatch):
    path = tmp_path / f"file{suffix}"
    before = os.umask(umask)
    try:
        # The umask belongs to the whole process: changing it would be seen by other threads.
        with monkeypatch.context() as patch:
            patch.setattr(os, "umask", lambda _: pytest.fail("the umask was changed"))
            if suffix == ".txt":
                write_atomically(path, lambda file: file.write_text("new"))
            else:
                internimage.save_checkpoint({"weight": torch.zeros(2)}, path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_only_weights_without_memory_of_their_own_are_copied(suffix, tmp_path, monkeypatch):
    whole = torch.arange(12.0).reshape(3, 4)
    table = torch.arange(1000.0)
    weights = {"whole": whole, "turned": torch.arange(6.0).reshape(2, 3).T, "tied": whole,
               "slice": table[5:9]}  # fmt: skip
    written: dict[str, torch.Tensor] = {}
    save_file, save = checkpoint_file.save_file, torch.save

    def save_safetensors(tensors, path, labels):
        written.update(tensors)
        save_file(tensors, path, labels)

    def save_pth(content, path):
        written.update(content["model"])
        save(content, path)

    monkeypatch.setattr(checkpoint_file, "save_file", save_safetensors)
    monkeypatch.setattr(torch, "save", save_pth)
    path = tmp_path / f"model{suffix}"
    internimage.save_checkpoint(weights, path)
    assert written["whole"].data_ptr() == whole.data_ptr()
    assert len({tensor.data_ptr() for tensor in written.values()}) == len(weights)
    assert path.stat().st_size < 4000  # the slice's table alone has 4000 bytes
    saved = internimage.read_checkpoint(path).state_dict
    torch.testing.assert_close(saved, weights, rtol=0, atol=0)
