"""The grid of predictions."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tools.plot_predictions import WRONG, Tile, draw_predictions, main

PICTURE = np.full((8, 8, 3), 128, np.uint8)


def pixels_of(path: Path, colour: str) -> int:
    """How many pixels of a PNG file have exactly this colour."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    with Image.open(path) as image:
        return int((np.asarray(image.convert("RGB")) == [red, green, blue]).all(axis=-1).sum())


def test_only_mistakes_are_marked(tmp_path: Path):
    right, wrong = Tile(PICTURE, "3", 0.9, truth="3"), Tile(PICTURE, "3", 0.9, truth="8")
    draw_predictions(tmp_path / "right.png", [right] * 3, title="right")
    draw_predictions(tmp_path / "wrong.png", [right, wrong, right], title="wrong")
    assert pixels_of(tmp_path / "right.png", WRONG) == 0
    assert pixels_of(tmp_path / "wrong.png", WRONG) > 500


def test_a_photograph_without_a_known_class_is_no_mistake():
    assert not Tile(PICTURE, "cat", 0.5).is_wrong
    assert Tile(PICTURE, "cat", 0.5, truth="dog").is_wrong
    assert not Tile(PICTURE, "cat", 0.5, truth="cat").is_wrong


def test_an_empty_grid_is_an_error(tmp_path: Path):
    with pytest.raises(ValueError, match="expected images >= 1, got 0"):
        draw_predictions(tmp_path / "none.png", [], title="none")


def test_the_command_draws_photographs(tmp_path: Path, capsys):
    paths = [tmp_path / f"{index}.png" for index in range(7)]
    for path in paths:
        Image.effect_noise((40, 30), 60).save(path)
    arguments = [*paths, "--model", "internimage_test_t", "--random-weights"]
    assert main([*map(str, arguments), "--out", str(tmp_path / "grid.png")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "grid.png")
    with Image.open(tmp_path / "grid.png") as image:
        assert image.width > image.height / 2
