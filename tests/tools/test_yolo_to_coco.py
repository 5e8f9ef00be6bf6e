"""YOLO's text labels as COCO."""

from pathlib import Path

import pytest
from PIL import Image
from pycocotools.coco import COCO

from internimage.integrations.openmmlab.data.coco_check import check_coco, read_coco
from tools.yolo_to_coco import find_labels, main

UPRIGHT = 6  # EXIF: to be turned by a quarter


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for name, size in (("a.jpg", (80, 40)), ("far/b.png", (50, 50)), ("empty.jpg", (10, 10))):
        path = tmp_path / "images" / "train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size).save(path)
    labels = tmp_path / "labels" / "train"
    (labels / "far").mkdir(parents=True)
    (labels / "a.txt").write_text("0 0.5 0.5 0.25 0.5\n\n2 0.125 0.25 0.25 0.5\n")
    (labels / "far" / "b.txt").write_text("1 0.2 0.2 0.8 0.2 0.8 0.6\n")
    (tmp_path / "data.yaml").write_text("names: {0: cat, 1: dog, 2: eel}\ntrain: images/train\n")
    return tmp_path


def convert(data: Path, *arguments: object) -> dict:
    out = data / "out.json"
    words = [str(word) for word in arguments] or ["--classes", str(data / "data.yaml")]
    assert main([str(data / "images" / "train"), *words, "--out", str(out), "--overwrite"]) == 0
    content = read_coco(out)
    assert check_coco(content).stopping == ()
    return content


def test_boxes_and_polygons_in_pixels(data: Path, capsys):
    content = convert(data)
    assert [category["name"] for category in content["categories"]] == ["cat", "dog", "eel"]
    names = {image["id"]: image["file_name"] for image in content["images"]}
    assert sorted(names.values()) == ["a.jpg", "empty.jpg", "far/b.png"]
    found = [
        (names[a["image_id"]], a["category_id"], a["bbox"], a["area"], a.get("segmentation"))
        for a in content["annotations"]
    ]
    assert found == [
        ("a.jpg", 1, [30, 10, 20, 20], 400, None),
        ("a.jpg", 3, [0, 0, 20, 20], 400, None),
        ("far/b.png", 2, [10, 10, 30, 20], 300, [[10, 10, 40, 10, 40, 30]]),
    ]
    assert (
        "3 images (1 without a box), 3 boxes (0 of them crowd regions)" in capsys.readouterr().out
    )
    coco = COCO(data / "out.json")
    area = coco.annToMask(coco.anns[3]).sum()
    assert abs(int(area) - 300) <= 30  # the staircase of a triangle's edge


@pytest.mark.parametrize(
    "text", ["names: [cat, dog, eel]", "names:\n  0: cat\n  1: dog\n  2: eel", None]
)
def test_the_names_may_stand_in_each_of_yolo_s_files(text: str | None, data: Path):
    if text is None:
        path = data / "classes.txt"
        path.write_text("cat\ndog\neel\n")
    else:
        path = data / "other.yml"
        path.write_text(text)
    content = convert(data, "--classes", path)
    assert [category["name"] for category in content["categories"]] == ["cat", "dog", "eel"]
    content = convert(data, "--classes", "cat", "dog", "eel")
    assert [category["name"] for category in content["categories"]] == ["cat", "dog", "eel"]


def test_shares_are_of_the_upright_image(data: Path):
    exif = Image.Exif()
    exif[274] = UPRIGHT
    Image.new("RGB", (80, 40)).save(data / "images" / "train" / "a.jpg", exif=exif)
    content = convert(data)
    assert (content["images"][0]["width"], content["images"][0]["height"]) == (40, 80)
    assert content["annotations"][0]["bbox"] == [15, 20, 10, 40]


def test_a_box_that_rounding_moved_over_the_border_is_cut_off(data: Path):
    (data / "labels" / "train" / "a.txt").write_text("0 0.5 0.5 1.002 1.0\n")
    assert convert(data)["annotations"][0]["bbox"] == [0, 0, 80, 40]


def test_every_mistake_is_a_line_with_file_and_number_and_nothing_is_written(data: Path, capsys):
    path = data / "labels" / "train" / "a.txt"
    path.write_text(
        "3 0.5 0.5 0.2 0.2\n0 0.5 0.5 0.2\n0 a b c d\n0 5 5 2 2\n0.5 0.5 0.5 0.1 0.1\n"
        "0 0.5 0.5 0 0.1\n0 nan 0.5 0.1 0.1\n0 0.1 0.1 0.2 0.2 0.3 0.3\n0 0.5 0.5 0.1 0.1 0.9\n"
    )
    lonely = data / "labels" / "train" / "lonely.txt"
    lonely.write_text("")
    (data / "labels" / "train" / "classes.txt").write_text("cat\n")  # LabelImg's
    out = data / "out.json"
    words = [str(data / "images" / "train"), "--classes", str(data / "data.yaml")]
    assert main([*words, "--out", str(out)]) == 2
    errors = capsys.readouterr().err.splitlines()
    expected = [
        "expected a class from 0 to 2, got 3",
        "expected a class and 4 numbers of a box, or 6, 8, ... of a polygon, got 3",
        "expected numbers, got '0 a b c d'",
        "expected shares of the image, 0-1, got 5 5 2 2",
        "expected a class from 0 to 2, got 0.5",
        "expected an object with an area",
        "expected shares of the image, 0-1, got nan",
        "expected an object with an area",
        "of a polygon, got 5",
    ]
    for number, text in enumerate(expected, 1):
        assert errors[number - 1].startswith(f"yolo_to_coco: {path}:{number}: ")
        assert text in errors[number - 1]
    assert f"{lonely}: expected an image lonely.* in" in errors[9]
    assert errors[10:] == ["yolo_to_coco: error: 10 mistakes; nothing was written"]
    assert not out.exists()


def test_of_a_thousand_mistakes_the_first_twenty_are_shown(data: Path, capsys):
    (data / "labels" / "train" / "a.txt").write_text("9 0.5 0.5 0.2 0.2\n" * 1000)
    words = [str(data / "images" / "train"), "--classes", str(data / "data.yaml")]
    assert main([*words, "--out", str(data / "out.json")]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 21
    assert "1,000 mistakes, of which 980 are not shown" in errors[-1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: 3", "with names: a list, or a name for each of 0, 1, ...; got 3"),
        ("names: {1: cat}", "got {1: 'cat'}"),
        ("nc: 3", "got None"),
        ("names: [cat", "expected a YAML file"),
        ("names: [cat, cat]", "names that differ, got cat, cat"),
    ],
)
def test_wrong_names_are_one_line(text: str, message: str, data: Path, capsys):
    (data / "data.yaml").write_text(text)
    words = [str(data / "images" / "train"), "--classes", str(data / "data.yaml")]
    assert main([*words, "--out", str(data / "out.json")]) == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1 and message in errors


def test_the_folder_of_labels_is_found_beside_that_of_images():
    assert find_labels(Path("images/data/images/val")) == Path("images/data/labels/val")
    with pytest.raises(ValueError, match="expected --labels"):
        find_labels(Path("photos/val"))
