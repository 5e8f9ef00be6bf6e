"""Pascal VOC's XML as COCO."""

import json
from pathlib import Path

import pytest
from PIL import Image

from internimage.integrations.openmmlab.data.coco_check import check_coco, read_coco
from tools.voc_to_coco import main, to_box

OBJECT = """<object><name>{}</name><difficult>{}</difficult><bndbox><xmin>{}</xmin>
<ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>{}</object>"""


def write(root: Path, name: str, *objects: str, size: tuple[int, int] = (40, 30)) -> Path:
    path = root / "Annotations" / f"{name}.xml"
    for folder in (path.parent, root / "JPEGImages"):
        folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(root / "JPEGImages" / f"{name}.jpg")
    path.write_text(f"<annotation><filename>{name}.jpg</filename>{''.join(objects)}</annotation>")
    return path


def one(name: str, corners: tuple[float, ...], difficult: int = 0, more: str = "") -> str:
    return OBJECT.format(name, difficult, *corners, more)


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    root = tmp_path / "VOC2007"
    head = "<part><name>head</name><bndbox><xmin>2</xmin></bndbox></part>"
    write(root, "000001", one("dog", (1, 1, 40, 30)), one("cat", (11, 6, 20, 15), 1))
    write(root, "000002", one("person", (2.5, 3, 12, 13), more=head), size=(20, 50))
    write(root, "000003")
    lists = root / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("000002\n000003\n")
    (lists / "dog_train.txt").write_text("000001  1\n000002 -1\n000003  0\n")
    return root


def convert(tmp_path: Path, *arguments: object) -> dict:
    out = tmp_path / "out.json"
    assert main([*map(str, arguments), "--out", str(out), "--overwrite"]) == 0
    content = read_coco(out)
    assert check_coco(content).stopping == ()
    return content


def test_boxes_count_from_zero_and_difficult_objects_are_crowd_regions(voc, tmp_path, capsys):
    content = convert(tmp_path, voc)
    assert [category["name"] for category in content["categories"]] == ["cat", "dog", "person"]
    sizes = [(i["file_name"], i["width"], i["height"]) for i in content["images"]]
    assert sizes == [("000001.jpg", 40, 30), ("000002.jpg", 20, 50), ("000003.jpg", 40, 30)]
    found = [
        (a["image_id"], a["category_id"], a["bbox"], a["iscrowd"]) for a in content["annotations"]
    ]
    assert found == [
        (1, 2, [0, 0, 40, 30], 0),
        (1, 1, [10, 5, 10, 10], 1),
        (2, 3, [1.5, 2, 10.5, 11], 0),
    ]
    printed = capsys.readouterr().out
    assert "3 images (1 without a box), 3 boxes (1 of them crowd regions)" in printed
    assert f"file names are relative to {voc / 'JPEGImages'}" in printed


@pytest.mark.parametrize(("choice", "crowds"), [("keep", [0, 0, 0]), ("drop", [0, 0])])
def test_difficult_objects_can_be_kept_or_dropped(choice, crowds, voc, tmp_path):
    content = convert(tmp_path, voc, "--difficult", choice)
    assert [annotation["iscrowd"] for annotation in content["annotations"]] == crowds


@pytest.mark.parametrize(
    ("split", "names"),
    [("train", ["000002.jpg", "000003.jpg"]), ("dog_train", ["000001.jpg", "000003.jpg"])],
)
def test_a_split_chooses_the_images(split, names, voc, tmp_path):
    content = convert(tmp_path, voc, "--split", split)
    assert [image["file_name"] for image in content["images"]] == names


def test_two_years_become_one_file_whose_names_start_at_their_common_folder(voc, tmp_path):
    later = tmp_path / "VOC2012"
    write(later, "000001", one("cow", (1, 1, 2, 2)))
    content = convert(tmp_path, voc, later)
    names = [image["file_name"] for image in content["images"]]
    assert names[0] == "VOC2007/JPEGImages/000001.jpg"
    assert names[3] == "VOC2012/JPEGImages/000001.jpg"
    assert len({image["id"] for image in content["images"]}) == 4


def test_the_wanted_classes_are_kept_in_their_order(voc, tmp_path):
    (tmp_path / "names.txt").write_text("person\n\ndog\n")
    for classes in (["person", "dog"], [tmp_path / "names.txt"]):
        content = convert(tmp_path, voc, "--classes", *classes)
        assert [category["name"] for category in content["categories"]] == ["person", "dog"]
        assert [annotation["category_id"] for annotation in content["annotations"]] == [2, 1]


def test_a_box_of_one_pixel_and_edges_from_zero():
    assert to_box((5, 6, 5, 6), (40, 30), zero_based=False) == (4, 5, 1, 1)
    assert to_box((0, 0, 40, 30), (40, 30), zero_based=True) == (0, 0, 40, 30)
    assert to_box((30, 20, 45, 35), (40, 30), zero_based=True) == (30, 20, 15, 15)


def test_every_mistake_is_a_line_with_its_file_and_nothing_is_written(voc, tmp_path, capsys):
    zero = write(voc, "a", one("dog", (0, 1, 4, 4)))
    empty = write(voc, "b", one("dog", (9, 9, 4, 4)))
    outside = write(voc, "c", one("dog", (41, 9, 50, 14)))
    text = write(voc, "d", one("dog", ("x", 9, 50, 14)))
    nan = write(voc, "e", one("dog", ("nan", 9, 50, 14)))
    broken = write(voc, "f")
    broken.write_text("<annotation>")
    missing = write(voc, "g")
    (voc / "JPEGImages" / "g.jpg").unlink()
    write(voc, "h")
    damaged = voc / "JPEGImages" / "h.jpg"
    damaged.write_bytes(b"no image")
    out = tmp_path / "out.json"
    assert main([str(voc), "--out", str(out)]) == 2
    errors = capsys.readouterr().err.splitlines()
    for path, part in (
        (zero, "dog: expected a box that begins at 1 or later.*if the first pixel is 0"),
        (empty, "dog: expected a box in an image of 40x30"),
        (outside, "dog: expected a box in an image of 40x30"),
        (text, "expected object 1 with a name and a box"),
        (nan, "expected object 1 with a name and a box"),
        (broken, "expected an XML file"),
        (missing, r"expected an image g\.\* in"),
        (damaged, "expected an image, got"),
    ):
        (line,) = (line for line in errors if str(path) in line)
        with pytest.raises(ValueError, match=part):
            raise ValueError(line)
    assert errors[-1] == "voc_to_coco: error: 8 mistakes; nothing was written"
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{voc}/none"], "expected a folder of images, got no folder"),
        (["{voc}", "--split", "none"], "No such file"),
        (["{voc}", "--classes", "dog", "dog"], "expected --classes with names that differ"),
    ],
)
def test_a_wrong_argument_is_one_line(arguments, message, voc, tmp_path, capsys):
    arguments = [word.format(voc=voc) for word in arguments]
    assert main([*arguments, "--out", str(tmp_path / "out.json")]) == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1 and message in errors
    assert not (tmp_path / "out.json").exists()


def test_a_file_that_exists_is_replaced_only_on_demand(voc, tmp_path, capsys):
    out = tmp_path / "out.json"
    out.write_text("mine")
    assert main([str(voc), "--out", str(out)]) == 2
    assert "--overwrite replaces it" in capsys.readouterr().err
    assert out.read_text() == "mine"
    assert main([str(voc), "--out", str(out), "--overwrite"]) == 0
    assert json.loads(out.read_text())["images"]
