"""labelme's outlines drawn as semantic masks."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tools.labelme_to_masks import main

CLASSES = ("--classes", "road", "house")


def write(folder: Path, name: str, *shapes: dict[str, Any], **fields: Any) -> None:
    content = {"imageWidth": 12, "imageHeight": 8, "shapes": list(shapes), **fields}
    path = folder / "photos" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def shape(label: str, kind: str, *points: tuple[float, float]) -> dict[str, Any]:
    return {"label": label, "shape_type": kind, "points": [list(point) for point in points]}


def run(folder: Path, *flags: str) -> int:
    return main([str(folder / "photos"), "--out", str(folder / "masks"), *CLASSES, *flags])


def mask(folder: Path, name: str) -> np.ndarray:
    with Image.open(folder / "masks" / f"{name}.png") as file:
        return np.asarray(file)


def test_polygons_and_rectangles_are_filled_and_the_later_lies_on_top(tmp_path: Path, capsys):
    corners = ((0, 0), (5, 0), (5, 7), (0, 7))
    write(
        tmp_path,
        "town/1",
        shape("road", "polygon", *corners),
        shape("house", "rectangle", (8, 3), (4, 1)),
    )
    assert run(tmp_path) == 0
    expected = np.zeros((8, 12), dtype=np.uint8)
    expected[:, :6] = 1  # labelme's outlines go through the pixels that they name
    expected[1:4, 4:9] = 2
    np.testing.assert_array_equal(mask(tmp_path, "town/1"), expected)
    assert "classes=('background','road','house')" in capsys.readouterr().out


def test_a_circle_is_given_by_its_centre_and_a_point_on_its_edge(tmp_path: Path):
    write(
        tmp_path, "1", shape("house", "circle", (20, 20), (20, 30)), imageWidth=41, imageHeight=41
    )
    assert run(tmp_path) == 0
    rows, columns = np.mgrid[:41, :41]
    distance = np.hypot(rows - 20, columns - 20)
    drawn = mask(tmp_path, "1") == 2
    assert drawn[distance < 9.5].all()
    assert not drawn[distance > 10.5].any()


def test_without_a_background_what_is_bare_is_ignored(tmp_path: Path):
    write(tmp_path, "1", shape("house", "rectangle", (0, 0), (11, 3)))
    assert run(tmp_path, "--ignore-background") == 0
    assert mask(tmp_path, "1")[:, 0].tolist() == [1] * 4 + [255] * 4


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"shapes": [shape("tree", "polygon")]}, "shape 1 of background, road, house, got 'tree'"),
        ({"shapes": [shape("road", "polygon", (0, 0), (1, 1))]}, "got 'polygon' with 2"),
        ({"shapes": [shape("road", "line", (0, 0), (1, 1))]}, "got 'line' with 2"),
        ({"shapes": [None]}, "expected shape 1 an object of JSON, got None"),
        ({"shapes": [shape("road", "polygon", (0, 0), (1,), (2, 2))]}, "got 'polygon' with 0"),
        ({"imageWidth": None}, "expected imageWidth, imageHeight and shapes"),
        ({"imageHeight": 0}, "got 12x0"),
    ],
)
def test_a_mistake_is_told_with_its_file_and_nothing_is_written(
    fields, said, tmp_path: Path, capsys
):
    write(tmp_path, "1", **fields)
    write(tmp_path, "2")
    (tmp_path / "photos" / "3.json").write_text("[")
    assert run(tmp_path) == 2
    errors = capsys.readouterr().err.splitlines()
    assert "1.json: expected " in errors[0] and said in errors[0]
    assert "3.json: " in errors[1]
    assert errors[2].endswith("2 mistakes; nothing was written")
    assert not (tmp_path / "masks").exists()


def test_bad_folders_and_classes_are_one_line(tmp_path: Path, capsys):
    assert run(tmp_path) == 2
    (tmp_path / "photos").mkdir()
    assert run(tmp_path) == 2
    assert main([str(tmp_path / "photos"), "--out", "m", "--classes", "background"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert "got no folder" in lines[0] and "got none" in lines[1] and "none of them" in lines[2]
