"""segmentation/image_demo.py: the original's flags on the code of ``internimage segment``."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from internimage import cli
from tests.image_demos import make_folder, run_demo
from tests.segmentation.tiny_segmentors import make_pixels


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return make_folder("segmentation", tmp_path_factory.mktemp("demo"))


def test_the_originals_command_line_leaves_pictures_in_demo(folder, monkeypatch, capsys):
    code, out, err = run_demo(
        "segmentation", folder, monkeypatch, capsys, "photos", "config.py", "model.pth",
        "--palette", "ade20k", "--device", "cpu",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert "config: config.py" in out
    names = sorted(path.name for path in (folder / "demo").iterdir())
    assert names == ["a.jpg", "a.json", "a_labels.png", "b.json", "b.png", "b_labels.png"]
    answer = json.loads((folder / "demo" / "b.json").read_text())
    assert sum(one["share"] for one in answer["classes"]) == pytest.approx(1)
    with Image.open(folder / "demo" / "b_labels.png") as file:
        assert file.getpalette()[:6] == [120, 120, 120, 180, 120, 120]  # ADE20K's first colours


def test_without_opacity_the_picture_is_the_image(folder, monkeypatch, capsys):
    code, _, _ = run_demo(
        "segmentation", folder, monkeypatch, capsys, "photos/b.png", "config.py", "model.pth",
        "--out", "there", "--opacity", "0",
    )  # fmt: skip
    assert code == 0
    assert np.array_equal(np.asarray(Image.open(folder / "there" / "b.png")), make_pixels())


@pytest.mark.slow
def test_a_trained_segmentor_finds_the_digits_of_images_and_of_a_film(
    trained_segmentor, tmp_path, monkeypatch, capsys
):
    """Through both commands; the masks of the scenes are the oracle."""
    files = sorted((trained_segmentor.scenes / "val").glob("*.png"))[:20]
    masks = trained_segmentor.scenes / "semantic" / "val"
    truth = np.stack([np.asarray(Image.open(masks / file.name)) for file in files])
    code = cli.main(
        ["segment", *map(str, files), "--checkpoint", str(trained_segmentor.checkpoint),
         "--output", str(tmp_path / "images")]
    )  # fmt: skip
    assert (code, capsys.readouterr().err) == (0, "")
    found = np.stack(
        [np.asarray(Image.open(tmp_path / "images" / f"{file.stem}_labels.png")) for file in files]
    )
    on_digits = truth > 0
    assert (found == truth)[on_digits].mean() > 0.8
    assert (found == truth)[~on_digits].mean() > 0.9
    for file in files:
        answer = json.loads((tmp_path / "images" / f"{file.stem}.json").read_text())
        assert answer["classes"][0]["class_name"] == "background"

    height, width = truth.shape[1:]
    film = cv2.VideoWriter(
        str(tmp_path / "film.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (width, height)
    )
    for file in files:
        film.write(cv2.imread(str(file)))
    film.release()
    code, _, err = run_demo(
        "segmentation", tmp_path, monkeypatch, capsys, "film.avi", str(trained_segmentor.config),
        str(trained_segmentor.checkpoint), "--out", "film", "--device", "cpu",
    )  # fmt: skip
    assert (code, err) == (0, "")
    rows = [json.loads(line) for line in (tmp_path / "film/film.jsonl").read_text().splitlines()]
    assert len(rows) == len(files)
    # The film is compressed; of each frame the digits that are there are named, and few others.
    for row, mask in zip(rows, truth, strict=True):
        named = {one["label"] for one in row["classes"] if one["pixels"] > 50} - {0}
        there = set(np.unique(mask).tolist()) - {0}
        assert len(named & there) >= 0.5 * len(there)
