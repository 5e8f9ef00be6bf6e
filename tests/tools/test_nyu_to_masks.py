"""NYU Depth v2's files of MATLAB become images, masks of 40 classes and two lists."""

import contextlib
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from PIL import Image

from tools.nyu_to_masks import main

COUNT, HEIGHT, WIDTH, NUM_LABELS = 5, 6, 8, 12
CLASS_OF = np.arange(NUM_LABELS) % 3 + np.array([1, 1, 38] * 4)  # of labels 1 to 12
TRAIN, TEST = [1, 4, 5], [2, 3]


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    """What the large file holds: images (count, 3, W, H) and labels (count, W, H)."""
    random = np.random.default_rng(0)
    return {
        "images": random.integers(0, 256, (COUNT, 3, WIDTH, HEIGHT), dtype=np.uint8),
        "labels": random.integers(0, NUM_LABELS + 1, (COUNT, WIDTH, HEIGHT), dtype=np.uint16),
    }


@pytest.fixture
def folder(tmp_path: Path, arrays: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the three files; what reads the large one stands in for h5py."""

    @contextlib.contextmanager
    def read(path: Path, mode: str) -> Iterator[dict[str, Any]]:
        assert path == tmp_path / "labeled.mat" and mode == "r"
        yield arrays

    monkeypatch.setitem(sys.modules, "h5py", types.SimpleNamespace(File=read))
    (tmp_path / "labeled.mat").touch()
    splits = {"trainNdxs": np.array([TRAIN]).T, "testNdxs": np.array([TEST]).T}
    scipy.io.savemat(tmp_path / "splits.mat", splits)
    scipy.io.savemat(tmp_path / "classes.mat", {"mapClass": CLASS_OF[None]})
    return tmp_path


def run(folder: Path, *flags: str) -> int:
    files = [str(folder / f"{name}.mat") for name in ("labeled", "splits", "classes")]
    return main([*files, "--out", str(folder / "nyu"), *flags])


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as file:
        return np.asarray(file)


def test_every_image_has_a_mask_of_40_classes_and_stands_in_one_list(
    folder: Path, arrays: dict[str, np.ndarray], capsys: pytest.CaptureFixture[str]
):
    assert run(folder) == 0
    for index in range(COUNT):
        image = pixels(folder / "nyu" / "image" / f"{index + 1:04}.png")
        mask = pixels(folder / "nyu" / "label40" / f"{index + 1:04}.png")
        assert image.shape == (HEIGHT, WIDTH, 3) and mask.shape == (HEIGHT, WIDTH)
        assert mask.dtype == np.uint8
        for y in range(HEIGHT):
            for x in range(WIDTH):
                assert image[y, x].tolist() == arrays["images"][index, :, x, y].tolist()
                label = arrays["labels"][index, x, y]
                assert mask[y, x] == (CLASS_OF[label - 1] if label else 0)
    lists = [(folder / "nyu" / name).read_text().split() for name in ("train.txt", "test.txt")]
    assert lists == [["0001", "0004", "0005"], ["0002", "0003"]]
    assert "5 images" in capsys.readouterr().out


def test_what_is_there_is_not_replaced_without_being_asked(folder: Path):
    assert run(folder) == 0
    assert run(folder) == 2
    assert run(folder, "--overwrite") == 0


@pytest.mark.parametrize(
    ("file", "variables", "rule"),
    [
        ("splits", {"trainNdxs": [TRAIN], "testNdxs": [[2, 2]]}, "each of the 5 images in one"),
        ("splits", {"trainNdxs": [TRAIN]}, "expected testNdxs in"),
        ("classes", {"mapClass": CLASS_OF[None] + 1}, "classes 1 to 40"),
        ("classes", {"mapClass": CLASS_OF[None, :5]}, "expected labels 0 to 5, got 12 in image"),
        ("classes", {"other": [1]}, "expected mapClass in"),
    ],
)
def test_files_that_do_not_belong_together_are_one_line_and_nothing_is_written(
    folder: Path,
    file: str,
    variables: dict[str, Any],
    rule: str,
    capsys: pytest.CaptureFixture[str],
):
    scipy.io.savemat(folder / f"{file}.mat", variables)
    assert run(folder) == 2
    assert rule in capsys.readouterr().err
    assert not (folder / "nyu").exists()


def test_a_missing_file_and_a_missing_package_are_said(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    (folder / "labeled.mat").unlink()
    assert run(folder) == 2
    assert "expected a file, got none at" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "h5py", None)
    assert run(folder) == 2
    assert "pip install h5py" in capsys.readouterr().err
    for length in (0, 40, 200):  # SciPy has an error of another type for each
        (folder / "classes.mat").write_text("a" * length)
        assert run(folder) == 2
        assert "expected mapClass in" in capsys.readouterr().err
