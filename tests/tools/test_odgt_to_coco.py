"""CrowdHuman's .odgt as COCO."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from internimage.integrations.openmmlab.data.coco_check import check_coco, read_coco
from tools.odgt_to_coco import main


def person(fbox: list[float], **more: Any) -> dict[str, Any]:
    boxes = {"fbox": fbox, "vbox": [5, 6, 7, 8], "hbox": [1, 2, 3, 4]}
    return {"tag": "person", **boxes, "extra": {"box_id": 0, "occ": 0}, **more}


@pytest.fixture
def crowd(tmp_path: Path) -> Path:
    (tmp_path / "Images").mkdir()
    people = [
        person([10, 10, 20, 30]),
        person([-4, 30, 12, 40], extra={"ignore": 1}),
        person([40, 5, 10, 10], tag="mask", extra={"ignore": 1}),
        person([50, 5, 10, 10], hbox=[0, 0, 0, 0], head_attr={"ignore": 1}),
    ]
    lines = []
    for name, boxes in (("1,ab", people), ("2,cd", [])):
        Image.new("RGB", (64, 48)).save(tmp_path / "Images" / f"{name}.jpg")
        lines.append(json.dumps({"ID": name, "gtboxes": boxes}))
    (tmp_path / "a.odgt").write_text("\n".join(lines) + "\n")
    return tmp_path


def arguments(crowd: Path, *more: str) -> list[str]:
    out = ["--out", str(crowd / "out.json"), "--overwrite"]
    return [str(crowd / "a.odgt"), str(crowd / "Images"), *out, *more]


def test_full_boxes_are_learned_and_the_ignored_are_crowd_regions(crowd: Path, capsys):
    assert main(arguments(crowd)) == 0
    content = read_coco(crowd / "out.json")
    assert check_coco(content).stopping == ()
    assert content["categories"] == [{"id": 1, "name": "person"}]
    assert [image["file_name"] for image in content["images"]] == ["1,ab.jpg", "2,cd.jpg"]
    assert (content["images"][0]["width"], content["images"][0]["height"]) == (64, 48)
    found = [(a["bbox"], a["iscrowd"]) for a in content["annotations"]]
    boxes = [[10, 10, 20, 30], [-4, 30, 12, 40], [40, 5, 10, 10], [50, 5, 10, 10]]
    assert found == list(zip(boxes, [0, 1, 1, 0], strict=True))
    assert content["annotations"][0]["vis_bbox"] == [5, 6, 7, 8]
    assert content["annotations"][0]["head_bbox"] == [1, 2, 3, 4]
    assert "2 images (1 without a box), 4 boxes (2 of them crowd" in capsys.readouterr().out


def test_visible_boxes_and_heads_can_be_learned_instead(crowd: Path, capsys):
    assert main(arguments(crowd, "--box", "vbox")) == 0
    content = read_coco(crowd / "out.json")
    assert [a["bbox"] for a in content["annotations"]] == [[5, 6, 7, 8]] * 4
    assert content["annotations"][0]["full_bbox"] == [10, 10, 20, 30]
    assert main(arguments(crowd, "--box", "hbox")) == 0
    content = read_coco(crowd / "out.json")
    assert [a["bbox"] for a in content["annotations"]] == [[1, 2, 3, 4]] * 3
    assert "1 boxes without width or height were left out" in capsys.readouterr().out


def test_the_boxes_are_those_that_mmdet_reads(crowd: Path):
    from mmdet.datasets import CrowdHumanDataset

    assert main(arguments(crowd)) == 0
    content = read_coco(crowd / "out.json")
    (crowd / "train.odgt").write_text((crowd / "a.odgt").read_text())
    data = CrowdHumanDataset(
        data_root=str(crowd), ann_file="train.odgt", data_prefix={"img": "Images/"}, pipeline=[]
    )
    theirs = [
        (instance["bbox"], instance["ignore_flag"])
        for index in range(len(data))
        for instance in data.get_data_info(index)["instances"]
    ]
    ours = [
        ([x, y, x + width, y + height], annotation["iscrowd"])
        for annotation in content["annotations"]
        for x, y, width, height in [annotation["bbox"]]
    ]
    assert ours == theirs


def test_every_mistake_is_a_line_with_file_and_number_and_nothing_is_written(crowd: Path, capsys):
    bad = [
        ("{", "expected JSON, got '{'"),
        ("[]", "expected an object with ID and gtboxes"),
        ('{"ID": "9,zz", "gtboxes": []}', "expected an image 9,zz.jpg in"),
        ('{"ID": "1,ab", "gtboxes": [3]}', "expected the tag person or mask, got 3"),
        ('{"ID": "1,ab", "gtboxes": [{"tag": "dog"}]}', "got 'dog'"),
        (
            '{"ID": "1,ab", "gtboxes": [{"tag": "person"}]}',
            "expected fbox with 4 numbers, got None",
        ),
        (
            '{"ID": "1,ab", "gtboxes": [{"tag": "mask", "fbox": [1, 2, NaN, 4]}]}',
            "got [1, 2, nan, 4]",
        ),
    ]
    (crowd / "a.odgt").write_text("\n".join(line for line, _ in bad))
    assert main(arguments(crowd)) == 2
    errors = capsys.readouterr().err.splitlines()
    for number, (_, text) in enumerate(bad, 1):
        assert errors[number - 1].startswith(f"odgt_to_coco: {crowd / 'a.odgt'}:{number}: ")
        assert text in errors[number - 1]
    assert errors[-1] == "odgt_to_coco: error: 7 mistakes; nothing was written"
    assert not (crowd / "out.json").exists()


def test_a_missing_file_is_one_line(crowd: Path, capsys):
    (crowd / "a.odgt").unlink()
    assert main(arguments(crowd)) == 2
    assert "No such file" in capsys.readouterr().err
    assert main([str(crowd / "a.odgt"), str(crowd / "none"), "--out", str(crowd / "o.json")]) == 2
    assert "got no folder" in capsys.readouterr().err
