"""COCO's polygons and run lengths drawn as semantic masks."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tools.coco_to_masks import main
from tools.make_digit_scenes import main as make_scenes

SIZE = (12, 8)


def thing(index: int, category: int, shape: Any, **fields: Any) -> dict[str, Any]:
    whole = {"id": index, "image_id": 1, "category_id": category, "iscrowd": 0}
    return {**whole, "bbox": [1, 1, 4, 4], "area": 16, "segmentation": shape, **fields}


def rectangle(left: int, top: int, right: int, bottom: int) -> list[list[int]]:
    return [[left, top, right, top, right, bottom, left, bottom]]


@pytest.fixture
def annotations(tmp_path: Path) -> Path:
    """An image with a large cat, a small dog on it, and a second image without objects."""
    content = {
        "images": [
            {"id": 1, "file_name": "town/1.jpg", "width": SIZE[0], "height": SIZE[1]},
            {"id": 2, "file_name": "2.jpg", "width": 3, "height": 2},
        ],
        "annotations": [
            thing(1, 7, rectangle(4, 2, 6, 6)),
            thing(2, 3, rectangle(1, 1, 9, 7)),
        ],
        "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
    }
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    return path


def change(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def mask(folder: Path, name: str) -> np.ndarray:
    with Image.open(folder / name) as file:
        assert file.mode == "P"
        return np.asarray(file)


def test_the_smaller_object_lies_on_top(annotations: Path, tmp_path: Path, capsys):
    assert main([str(annotations), "--out", str(tmp_path / "masks")]) == 0
    expected = np.zeros(SIZE[::-1], dtype=np.uint8)
    expected[1:7, 1:9] = 1
    expected[2:6, 4:6] = 2
    np.testing.assert_array_equal(mask(tmp_path / "masks", "town/1.png"), expected)
    np.testing.assert_array_equal(mask(tmp_path / "masks", "2.png"), np.zeros((2, 3)))
    printed = capsys.readouterr().out
    assert "classes=('background','cat','dog')" in printed
    assert "2 masks, 0.0% of pixels ignored" in printed


def test_polygons_without_an_area_are_left_out_and_told(annotations: Path, tmp_path: Path, capsys):
    line, odd = [[1, 1, 5, 5]], [[1, 1, 5, 5, 7]]
    whole = rectangle(4, 2, 6, 6)
    objects = [
        thing(1, 3, line),
        thing(2, 3, odd),
        thing(3, 7, [*line, *whole]),
        thing(4, 3, whole),
    ]
    image = {"id": 1, "file_name": "town/1.jpg", "width": 12.0, "height": 8.0}
    change(annotations, annotations=objects, images=[image])
    assert main([str(annotations), "--out", str(tmp_path / "masks")]) == 0
    expected = np.zeros(SIZE[::-1], dtype=np.uint8)
    expected[2:6, 4:6] = 1  # as large as the other one, and behind it in the file
    np.testing.assert_array_equal(mask(tmp_path / "masks", "town/1.png"), expected)
    assert "3 x short polygon" in capsys.readouterr().out


def test_without_a_background_what_is_bare_is_ignored(annotations: Path, tmp_path: Path):
    words = [str(annotations), "--out", str(tmp_path / "masks"), "--classes", "dog"]
    assert main([*words, "--ignore-background"]) == 0
    expected = np.full(SIZE[::-1], 255, dtype=np.uint8)
    expected[2:6, 4:6] = 0
    np.testing.assert_array_equal(mask(tmp_path / "masks", "town/1.png"), expected)


@pytest.mark.parametrize("compressed", [False, True])
def test_run_lengths_are_drawn_to_the_pixel(compressed, annotations: Path, tmp_path: Path):
    rle = pytest.importorskip("pycocotools.mask")
    expected = np.random.default_rng(0).random(SIZE[::-1]) < 0.5
    runs = rle.encode(np.asfortranarray(expected, dtype=np.uint8))
    shape: dict[str, Any] = {"size": list(SIZE[::-1]), "counts": runs["counts"].decode()}
    if not compressed:
        pixels = expected.ravel(order="F")
        changes = np.flatnonzero(np.diff(pixels, prepend=False))
        counts = np.diff(changes, prepend=0, append=pixels.size)
        shape["counts"] = counts.tolist()
    change(annotations, annotations=[thing(1, 3, shape)])
    assert main([str(annotations), "--out", str(tmp_path / "masks")]) == 0
    np.testing.assert_array_equal(mask(tmp_path / "masks", "town/1.png"), expected)


def test_the_scenes_of_digits_get_the_masks_that_they_came_with(tmp_path: Path):
    scenes = tmp_path / "scenes"
    assert make_scenes(["--out", str(scenes), "--train", "4", "--val", "1", "--size", "64"]) == 0
    words = [str(scenes / "annotations" / "train.json"), "--out", str(tmp_path / "masks")]
    assert main(words) == 0
    for index in range(4):
        with Image.open(scenes / "semantic" / "train" / f"{index:05}.png") as file:
            expected = np.asarray(file)
        np.testing.assert_array_equal(mask(tmp_path / "masks", f"{index:05}.png"), expected)


@pytest.mark.parametrize(
    ("fields", "flags", "said"),
    [
        ({"annotations": [thing(1, 3, None)]}, (), "1 x no mask"),
        ({}, ("--classes", "bird"), "expected --classes of the file (cat, dog), got bird"),
        (
            {"categories": [{"id": 3, "name": "background"}, {"id": 7, "name": "dog"}]},
            (),
            "expected no class of the name background",
        ),
        (
            {"images": [{"id": 1, "file_name": "../../1.jpg", "width": 12, "height": 8}]},
            (),
            "expected file names inside a folder, got ../../1.png",
        ),
        (
            {
                "images": [
                    {"id": 1, "file_name": "1.jpg", "width": 12, "height": 8},
                    {"id": 2, "file_name": "1.png", "width": 12, "height": 8},
                ]
            },
            (),
            "expected images of different names, got two for 1.png",
        ),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(
    fields, flags, said, annotations: Path, tmp_path: Path, capsys
):
    change(annotations, **fields)
    assert main([str(annotations), "--out", str(tmp_path / "masks"), *flags]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("coco_to_masks: error: ") and said in line
    assert not (tmp_path / "masks").exists()
