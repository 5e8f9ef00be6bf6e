"""The digits as PNG files."""

from pathlib import Path

import numpy as np
from PIL import Image

from classification.data.digits import Digits
from tools.write_digit_folders import main


def test_the_files_are_the_digits_in_their_split(tmp_path: Path, capsys):
    assert main(["--out", str(tmp_path / "digits")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'digits'}: 1797 images in 10 classes\n"
    for half, digits in (("train", Digits(train=True)), ("val", Digits(train=False))):
        folders = sorted((tmp_path / "digits" / half).iterdir())
        assert [folder.name for folder in folders] == [str(digit) for digit in range(10)]
        files = {int(path.stem): path for folder in folders for path in folder.iterdir()}
        assert sorted(files) == sorted(digits.indices)
        for index, image, label in zip(digits.indices, digits.images, digits.labels, strict=True):
            assert files[index].parent.name == str(label)
            with Image.open(files[index]) as file:
                assert np.array_equal(np.asarray(file), np.asarray(image))


def test_a_folder_in_use_stays_as_it_is(tmp_path: Path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    assert main(["--out", str(tmp_path)]) == 2
    assert "expected --out a new or empty folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
