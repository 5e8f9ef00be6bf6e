"""The command line of the check of masks."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tools.check_masks import main


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for index in range(3):
        Image.new("RGB", (8, 4)).save(tmp_path / "images" / f"{index}.png")
        mask = np.array([[0, 0, 1, 1, 1, 1, 255, 255]] * 4, dtype=np.uint8)
        Image.fromarray(mask).save(tmp_path / "masks" / f"{index}.png")
    return tmp_path


def run(folder: Path, *flags: str) -> int:
    words = [str(folder / "images"), str(folder / "masks"), "--img-suffix", ".png"]
    return main([*words, "--classes", "road", "house", *flags])


def test_a_whole_data_set_ends_with_zero_and_its_shares(folder: Path, capsys):
    assert run(folder) == 0
    printed = capsys.readouterr().out
    rows = [line.split() for line in printed.splitlines()]
    assert rows[0] == ["share", "masks", "class"]
    assert rows[1:3] == [["33.33%", "3", "road"], ["66.67%", "3", "house"]]
    assert "3 images, 3 masks read, 2 classes, 25.0% of all pixels ignored; 0 kinds" in printed


def test_a_fault_that_stops_ends_with_one(folder: Path, capsys):
    Image.new("L", (8, 4), 7).save(folder / "masks" / "1.png")
    assert run(folder) == 1
    printed = capsys.readouterr().out
    assert "1  stops    unknown label: a label that no class has" in printed
    assert "masks/1.png has 7 (32 pixels); the 2 classes are 0-1" in printed


def test_one_that_does_not_ends_with_zero(folder: Path, capsys):
    (folder / "images" / "2.png").unlink()
    assert run(folder) == 0
    assert "1  dropped  mask without image" in capsys.readouterr().out


def test_the_images_are_decoded_unless_that_is_not_wanted(folder: Path, capsys):
    Image.effect_noise((64, 64), 60).save(folder / "images" / "0.png")
    Image.new("L", (64, 64)).save(folder / "masks" / "0.png")
    whole = (folder / "images" / "0.png").read_bytes()
    (folder / "images" / "0.png").write_bytes(whole[: len(whole) // 2])
    assert run(folder) == 1
    assert "unreadable image" in capsys.readouterr().out
    assert run(folder, "--no-decode") == 0


def test_classes_and_names_may_be_in_files(folder: Path, capsys):
    (folder / "names.txt").write_text("road\nhouse\n")
    (folder / "split.txt").write_text("2\n\n0\n")
    words = [str(folder / "images"), str(folder / "masks"), "--img-suffix", ".png"]
    words += ["--classes", str(folder / "names.txt"), "--split", str(folder / "split.txt")]
    assert main(words) == 0
    assert "2 images, 2 masks read, 2 classes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--workers", "0"], "expected --workers >= 1, got 0"),
        (["--limit", "0"], "expected limit >= 1, got 0"),
        (["--split", "nowhere.txt"], "nowhere.txt"),
        (["--classes", "a", "a"], "expected --classes with names that differ"),
    ],
)
def test_a_mistake_is_one_line(folder: Path, flags, said, capsys):
    assert run(folder, *flags) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("check_masks: error: ") and said in line
