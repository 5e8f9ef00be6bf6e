"""A COCO data set checked before it is trained on, and cleaned."""

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from internimage.integrations.openmmlab.data.coco_check import check_coco, read_coco
from tools.check_coco import main

SIDEWAYS = 6


def box(index: int, image: int, corner: list[float], **fields: Any) -> dict[str, Any]:
    whole = {"id": index, "image_id": image, "category_id": 1, "iscrowd": 0}
    return {**whole, "bbox": corner, "area": corner[2] * corner[3], **fields}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Five images of 32x24 with a box each, of which nothing is wrong."""
    (tmp_path / "images").mkdir()
    content = {
        "images": [
            {"id": i, "file_name": f"{i}.jpg", "width": 32, "height": 24} for i in range(1, 6)
        ],
        "annotations": [box(i, i, [4, 4, 8, 8]) for i in range(1, 6)],
        "categories": [{"id": 1, "name": "cat"}, {"id": 5, "name": "dog"}],
        "info": {"year": 2026},
    }
    for i in range(1, 6):
        Image.effect_noise((32, 24), 60).save(tmp_path / "images" / f"{i}.jpg")
    write(tmp_path, content)
    return tmp_path


def write(data: Path, content: dict[str, Any]) -> None:
    (data / "a.json").write_text(json.dumps(content))


def change(data: Path, *annotations: dict[str, Any]) -> dict[str, Any]:
    content = read_coco(data / "a.json")
    content["annotations"] += annotations
    write(data, content)
    return content


def check(data: Path, *flags: str) -> int:
    return main([str(data / "a.json"), str(data / "images"), "--min-size", "0", *flags])


def test_images_that_a_training_leaves_out_are_named(data: Path, capsys):
    content = read_coco(data / "a.json")
    content["images"][0].update(width=640, height=480)
    write(data, content)
    assert main([str(data / "a.json")]) == 0
    printed = capsys.readouterr().out
    assert "4  dropped  small image: an image whose shorter side is below" in printed
    assert "2.jpg is 32x24" in printed
    assert "1  cat" in printed


def test_a_whole_data_set_ends_with_zero_and_its_numbers(data: Path, capsys):
    assert check(data) == 0
    printed = capsys.readouterr().out
    assert "5 images (0 empty), 5 annotations (0 crowd regions), 2 classes; 0 kinds" in printed
    rows = [line.split() for line in printed.splitlines()]
    assert ["5", "cat"] in rows and ["0", "dog"] in rows
    assert "gap in category ids" in printed and "harmless" in printed


def test_what_a_training_drops_is_told_and_no_reason_to_stop(data: Path, capsys):
    change(
        data,
        box(6, 1, [1, 1, 0, 5]),
        box(7, 2, [40, 1, 5, 5]),
        box(8, 2, [20, 1, -5, 5]),
        box(9, 3, [1, 1, 5, 5], iscrowd=1),
    )
    assert check(data) == 0
    printed = capsys.readouterr().out
    assert "id 6 in image 1, bbox [1, 1, 0, 5], area 0" in printed
    for kind in ("zero area", "outside", "negative size", "crowd region"):
        assert kind in printed


def test_what_stops_a_training_ends_with_one(data: Path, capsys):
    change(data, box(6, 1, [1, 1, math.nan, 5]))
    assert check(data) == 1
    assert "not finite" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("harm", "kind"),
    [
        (lambda path: path.unlink(), "missing image"),
        (lambda path: path.write_bytes(path.read_bytes()[:300]), "unreadable image"),
        (lambda path: path.write_text("no image"), "unreadable image"),
        (lambda path: path.write_bytes(b""), "unreadable image"),
        (lambda path: Image.new("RGB", (24, 32)).save(path), "wrong size"),
    ],
)
def test_images_are_opened_and_compared(harm, kind: str, data: Path, capsys):
    harm(data / "images" / "2.jpg")
    assert check(data) == 1
    printed = capsys.readouterr().out
    assert kind in printed and "2.jpg" in printed
    assert main([str(data / "a.json"), "--min-size", "0"]) == 0  # nobody asked for the images


def test_truncation_shows_only_when_decoded(data: Path, capsys):
    path = data / "images" / "2.jpg"
    path.write_bytes(path.read_bytes()[:-60])
    assert check(data, "--no-decode") == 0
    assert check(data) == 1
    assert "unreadable image" in capsys.readouterr().out


def test_a_photograph_that_is_to_be_turned_has_the_upright_size(data: Path, capsys):
    exif = Image.Exif()
    exif[274] = SIDEWAYS
    Image.effect_noise((24, 32), 60).save(data / "images" / "2.jpg", exif=exif)
    assert check(data) == 0
    Image.effect_noise((32, 24), 60).save(data / "images" / "2.jpg", exif=exif)
    assert check(data) == 1
    assert "2.jpg is 24x32, not 32x24" in capsys.readouterr().out


def test_a_huge_image_is_noted_and_not_decoded(data: Path, capsys):
    Image.new("1", (9000, 6000)).save(data / "images" / "2.png")
    content = read_coco(data / "a.json")
    content["images"][1].update(file_name="2.png", width=9000, height=6000)
    write(data, content)
    assert check(data) == 0
    assert "large image" in capsys.readouterr().out


def test_the_wanted_classes_must_be_there_in_the_file_s_order(data: Path, capsys):
    assert check(data, "--classes", "cat", "dog") == 0
    assert check(data, "--classes", "dog", "cat") == 1
    assert check(data, "--classes", "cat", "eel") == 1
    assert "'eel' is not among cat, dog" in capsys.readouterr().out


def test_fix_writes_what_is_whole_and_says_what_it_did(data: Path, capsys):
    content = change(
        data,
        box(6, 1, [1, 1, 0, 5]),
        box(7, 2, [40, 1, 5, 5]),
        box(8, 3, [28, 20, 10, 10]),
        box(8, 3, [2, 2, math.nan, 4]),
        box(9, 9, [2, 2, 3, 4]),
        box(10, 4, [2, 2, 3, 4], category_id=2),
        {"id": 11, "image_id": 4, "category_id": 5, "bbox": [2, 2, 3, 4]},
        box(12, 4, [2, 2, 6, 6], segmentation=[[2, 2, 8, 2, 8, 8], [1, 1]], area=None),
        box(0, 4, [2, 2, 6, 6]),
    )
    original = copy.deepcopy(content)
    (data / "images" / "1.jpg").unlink()
    Image.new("RGB", (30, 24)).save(data / "images" / "2.jpg")
    out = data / "fixed.json"
    assert check(data, "--fix", str(out)) == 0
    fixed = read_coco(out)
    assert read_coco(data / "a.json")["images"] == original["images"]
    assert [image["id"] for image in fixed["images"]] == [2, 3, 4, 5]
    assert fixed["images"][0]["width"] == 30
    assert fixed["categories"] == original["categories"] and fixed["info"] == {"year": 2026}
    found = [(a["image_id"], a["bbox"], a["area"]) for a in fixed["annotations"]]
    assert found[:4] == [(i, [4, 4, 8, 8], 64) for i in (2, 3, 4, 5)]
    assert found[4:6] == [(3, [28, 20, 4, 4], 100), (4, [2, 2, 3, 4], 12.0)]
    (image, corners, area) = found[6]
    assert (image, corners) == (4, [2, 2, 6, 6]) and 15 <= area <= 21  # half of 36
    assert found[7] == (4, [2, 2, 6, 6], 36)
    assert [a["id"] for a in fixed["annotations"]] == list(range(1, 9))
    assert all("iscrowd" in annotation for annotation in fixed["annotations"])
    report = check_coco(fixed)
    assert all(fault.effect == "noted" for fault in report.faults)
    printed = capsys.readouterr().out
    for line in (
        "1 x size of an image corrected",
        "1 x images dropped: unreadable",
        "3 x annotations dropped: unknown image",
        "1 x annotations dropped: unknown category",
        "1 x annotations dropped: outside",
        "1 x annotations dropped: not finite",
        "1 x box cut off at the border",
        "1 x parts of a polygon dropped",
        "2 x area filled in",
        "1 x iscrowd filled in",
        "8 x annotations numbered anew",
        "4 images, 8 annotations",
    ):
        assert f"{out}: {line}" in printed, printed


def test_the_cleaned_file_is_as_the_original_where_nothing_is_wrong(data: Path):
    assert check(data, "--fix", str(data / "fixed.json")) == 0
    assert read_coco(data / "fixed.json") == read_coco(data / "a.json")


def test_the_cleaned_file_does_not_replace_another_unasked(data: Path, capsys):
    assert check(data, "--fix", str(data / "a.json")) == 2
    assert "expected --fix a new file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{data}/none.json"], "expected an annotation file, got no file"),
        (["{data}/images/1.jpg"], "expected a JSON file"),
        (["{data}/a.json", "{data}/none"], "expected a folder of images, got no folder"),
        (["{data}/a.json", "--workers", "0"], "expected --workers >= 1, got 0"),
    ],
)
def test_a_mistake_is_one_line(arguments, message, data: Path, capsys):
    assert main([word.format(data=data) for word in arguments]) == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1 and message in errors
