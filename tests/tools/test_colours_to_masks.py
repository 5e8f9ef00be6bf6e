"""Masks in colours become masks of labels, or a line that says where the stray colour is."""

import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tools.colours_to_masks import main, read_colours

ROAD, HOUSE, EDGE = (128, 64, 128), (70, 70, 70), (255, 255, 255)
TABLE = "road #804080\nhouse 70 70 70\nignore #ffffff\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "masks" / "town").mkdir(parents=True)
    (tmp_path / "colours.txt").write_text(TABLE)
    put(tmp_path, "1", ROAD, HOUSE, EDGE)
    put(tmp_path, "town/2", ROAD, ROAD, HOUSE)
    return tmp_path


def put(folder: Path, name: str, *colours: tuple[int, ...], mode: str = "RGB") -> Path:
    """A mask with a row of four pixels of each colour."""
    rows = np.repeat(np.array(colours, dtype=np.uint8)[:, None], 4, axis=1)
    path = folder / "masks" / f"{name}.png"
    Image.fromarray(rows).convert(mode).save(path)
    return path


def run(folder: Path, *flags: str) -> int:
    words = [str(folder / "masks"), "--out", str(folder / "labels")]
    return main([*words, "--colours", str(folder / "colours.txt"), *flags])


def labels(folder: Path, name: str) -> list[int]:
    """The label of each row."""
    with Image.open(folder / "labels" / f"{name}.png") as file:
        values = np.asarray(file)
    assert values.dtype == np.uint8 and values.ndim == 2
    assert (values == values[:, :1]).all()
    return values[:, 0].tolist()


def test_colours_become_the_numbers_of_their_classes(folder: Path, capsys):
    assert run(folder) == 0
    assert labels(folder, "1") == [0, 1, 255]
    assert labels(folder, "town/2") == [0, 0, 1]
    with Image.open(folder / "labels" / "1.png") as file:  # and viewers still show the colours
        assert [file.convert("RGB").getpixel((0, row)) for row in range(2)] == [ROAD, HOUSE]
    printed = capsys.readouterr().out.splitlines()
    assert "2 masks, 16.7% of pixels ignored" in printed[0]
    assert printed[1].split() == ["0", "50.00%", "2", "masks", "road"]
    options = shlex.split(printed[-1])
    assert options == [
        "--cfg-options", "classes=('road','house')", "palette=[[128,64,128],[70,70,70]]"
    ]  # fmt: skip


@pytest.mark.parametrize("mode", ["P", "RGBA"])
def test_palettes_and_opaque_colours_count_as_what_they_show(mode, folder: Path):
    path = put(folder, "1", ROAD, HOUSE, EDGE)
    with Image.open(path) as file:
        other = file.convert(mode) if mode == "RGBA" else file.quantize(3)
    other.save(path)
    assert run(folder) == 0
    assert labels(folder, "1") == [0, 1, 255]


@pytest.mark.parametrize("mode", ["1", "L", "LA"])
def test_black_and_white_are_colours(mode, folder: Path):
    (folder / "masks" / "town" / "2.png").unlink()
    put(folder, "1", (0, 0, 0), (255, 255, 255), mode=mode)
    words = [str(folder / "masks"), "--out", str(folder / "labels")]
    assert main([*words, "--colours", "sky=#000000", "bird=#FFFFFF"]) == 0
    assert labels(folder, "1") == [0, 1]


def test_a_colour_that_is_not_in_the_list_is_told_with_its_place(folder: Path, capsys):
    put(folder, "town/2", ROAD, (1, 2, 3), (1, 2, 4))
    assert run(folder) == 2
    first, last = capsys.readouterr().err.splitlines()
    assert "masks/town/2.png: expected colours of the list" in first
    assert "#010203 (4 pixels, the first at x=0, y=1)" in first
    assert "#010204 (4 pixels, the first at x=0, y=2)" in first
    assert "1 mistakes; nothing was written" in last
    assert not (folder / "labels").exists()


def test_what_has_no_colours_is_told(folder: Path, capsys):
    put(folder, "1", (*ROAD, 255), (*HOUSE, 9), mode="RGBA")
    Image.fromarray(np.zeros((2, 2), dtype=np.uint16)).save(folder / "masks" / "deep.png")
    (folder / "masks" / "broken.png").write_text("<html>")
    assert run(folder) == 2
    errors = capsys.readouterr().err
    assert "1.png: expected opaque colours, got a transparent pixel at x=0, y=1" in errors
    assert "deep.png: expected a mask of 8-bit colours, got one of Pillow's mode I;16" in errors
    assert "broken.png: expected an image" in errors
    assert "3 mistakes" in errors


def test_the_list_may_be_a_table_with_several_colours_of_a_class(tmp_path: Path):
    path = tmp_path / "classes.csv"
    path.write_text("name,r,g,b\nroad,1,2,3\n\nbig house, 4,5,6\nroad #070809\nignore,0,0,0\n")
    names, colours = read_colours([str(path)])
    assert names == ["road", "big house"]
    assert colours == {(1, 2, 3): 0, (4, 5, 6): 1, (7, 8, 9): 0, (0, 0, 0): 255}


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("road 1 2\n", "colours.txt:1: expected a name and a colour"),
        ("road 1 2 256\n", "expected a name and a colour"),
        ("#804080\n", "expected a name and a colour"),
        ("a #000001\nb #000001\n", "colours.txt:2: expected colours that differ, got #000001"),
        ("ignore #000000\n", "expected --colours of 1 to 255 classes, got 0"),
    ],
)
def test_a_bad_list_is_one_line(table, said, folder: Path, capsys):
    (folder / "colours.txt").write_text(table)
    assert run(folder) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("colours_to_masks: error: ") and said in line


def test_bad_folders_are_one_line_and_nothing_is_lost(folder: Path, capsys):
    words = ["--colours", str(folder / "colours.txt")]
    masks = str(folder / "masks")
    assert main([str(folder / "nowhere"), "--out", str(folder / "labels"), *words]) == 2
    assert main([masks, "--out", masks, "--overwrite", *words]) == 2
    (folder / "empty").mkdir()
    assert main([str(folder / "empty"), "--out", str(folder / "labels"), *words]) == 2
    assert run(folder) == 0
    assert run(folder) == 2  # not without --overwrite
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    assert "got no folder" in lines[0] and "another folder" in lines[1] and "got none" in lines[2]
    assert run(folder, "--overwrite") == 0
    assert labels(folder, "1") == [0, 1, 255]
