"""Broken images are found before a training finds them."""

from pathlib import Path

import pytest
from PIL import Image

from tools.check_images import main


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for half in ("train", "val"):
        for index in range(40):
            path = tmp_path / "data" / half / f"class {index % 2}" / f"{index}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.effect_noise((16, 12), 60).save(path)
    return tmp_path / "data"


def test_whole_images_are_fine(folders: Path, capsys):
    assert main(["--data-path", str(folders)]) == 0
    out, errors = capsys.readouterr()
    assert (out, errors) == ("", "check_images: 0 broken of 40 train and 40 test images\n")


def test_each_broken_file_is_a_line_with_its_path(folders: Path, capsys):
    cut, text, empty = (
        folders / path
        for path in ("train/class 0/4.jpg", "train/class 1/31.jpg", "val/class 0/2.jpg")
    )
    cut.write_bytes(cut.read_bytes()[:200])
    text.write_text("no image")
    empty.write_bytes(b"")
    assert main(["--data-path", str(folders), "--workers", "2"]) == 1
    out, errors = capsys.readouterr()
    lines = [line.split("\t") for line in out.splitlines()]
    assert [line[0] for line in lines] == [str(path) for path in (cut, text, empty)]
    assert all(str(path) in line[1] for path, line in zip((cut, text, empty), lines, strict=True))
    assert "3 broken of 40 train and 40 test images" in errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected DATA.DATA_PATH"),
        (["--data-path", "/nothing"], "expected DATA.DATA_PATH a folder"),
        (["--data-path", ".", "--workers", "0"], "expected --workers >= 1, got 0"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], message: str, capsys):
    assert main(arguments) == 2
    errors = capsys.readouterr().err
    assert message in errors and errors.count("\n") == 1
