"""What a COCO annotation file may have wrong with it, found and held against what mmdet does."""

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmdet.datasets import CocoDataset
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from internimage.integrations.openmmlab.data.coco_check import (
    check_coco,
    read_coco,
    require_trainable,
)
from internimage.integrations.openmmlab.data.coco_faults import KINDS
from tools.coco_repair import repair

POLYGON = [[2, 2, 12, 2, 12, 12, 2, 12]]
RUNS = {"size": [24, 32], "counts": [50, 10, 708]}
Change = Callable[[dict[str, Any]], None]


def whole() -> dict[str, Any]:
    """Three images, two classes, four boxes: nothing is wrong with it."""
    boxes = [(1, 1, [2, 2, 10, 10]), (1, 2, [0, 0, 32, 24]), (2, 1, [8, 8, 9, 9])]
    boxes.append((3, 2, [1.5, 2.5, 8.25, 6]))
    return {
        "images": [
            {"id": i, "file_name": f"{i}.png", "width": 32, "height": 24} for i in (1, 2, 3)
        ],
        "annotations": [
            {
                "id": index,
                "image_id": image,
                "category_id": category,
                "bbox": list(box),
                "area": box[2] * box[3],
                "iscrowd": 0,
                "segmentation": copy.deepcopy(POLYGON if index % 2 else [RUNS][0]),
            }
            for index, (image, category, box) in enumerate(boxes, 1)
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }


def first(**fields: Any) -> Change:
    """Sets fields of the first annotation; None takes one away."""

    def change(content: dict[str, Any]) -> None:
        content["annotations"][0].update(fields)
        for key, value in fields.items():
            if value is None:
                del content["annotations"][0][key]

    return change


def categories(*pairs: tuple[Any, Any]) -> Change:
    def change(content: dict[str, Any]) -> None:
        content["categories"] = [{"id": key, "name": name} for key, name in pairs]

    return change


def image(**fields: Any) -> Change:
    return lambda content: content["images"][0].update(fields)


def without(key: str) -> Change:
    return lambda content: content[key].clear()


CHANGES: list[tuple[str, Change]] = [
    ("no images", without("images")),
    ("no boxes", without("annotations")),
    ("bad category", categories((1, "cat"), (1, "dog"))),
    ("bad category", categories((1, "cat"), (2, "cat"))),
    ("bad category", categories(("1", "cat"), (2, "dog"))),
    ("bad image", image(width=None)),
    ("bad image", image(height=0)),
    ("bad image", image(file_name=7)),
    ("bad image", image(width=math.nan)),
    ("duplicate image id", image(id=2)),
    ("bad annotation", first(id=None)),
    ("bad annotation", first(image_id=[1])),
    ("bad annotation", first(category_id="cat")),
    ("duplicate annotation id", first(id=2)),
    ("no box", first(bbox=None)),
    ("no box", first(bbox=[1, 2, 3])),
    ("no box", first(bbox=["1", "2", "3", "4"])),
    ("not finite", first(bbox=[math.nan, 2, 3, 4])),
    ("not finite", first(bbox=[1, 2, math.inf, 4])),
    ("not finite", first(area=math.nan)),
    ("no area", first(area=None)),
    ("no iscrowd", first(iscrowd=None)),
    ("no mask", first(segmentation=None)),
    ("no mask", first(segmentation=[])),
    ("bad run lengths", first(segmentation={"size": [24, 32], "counts": [50, 10]})),
    ("bad run lengths", first(segmentation={"size": [32, 24], "counts": [50, 10, 708]})),
    ("bad run lengths", first(segmentation={"size": [24, 32], "counts": [769, -1]})),
    ("bad run lengths", first(segmentation={"counts": "abc"})),
    ("bad run lengths", first(segmentation={"size": [24, 32], "counts": ["50", "718"]})),
    ("bad run lengths", first(segmentation={"size": [24, None], "counts": [50, 718]})),
    ("bad polygon", first(segmentation=[[math.nan, 2, 3, 4, 5, 6]])),
    ("bad polygon", first(segmentation=[[None] * 6])),
    ("bad polygon", first(segmentation=[*POLYGON, ["1", "2", "3", "4", "5", "6"]])),
    ("not finite", first(area=10**400)),
    ("zero area", first(bbox=[2, 2, 0, 5], segmentation=[[None] * 6])),
    ("bad polygon", first(segmentation=[1, 2, 3, 4, 5, 6])),
    ("unknown category", first(category_id=7)),
    ("unknown image", first(image_id=7)),
    ("negative size", first(bbox=[20, 20, -10, 5])),
    ("zero area", first(bbox=[2, 2, 0, 5])),
    ("zero area", first(bbox=[2, 2, 0.5, 5])),
    ("zero area", first(area=0)),
    ("outside", first(bbox=[32, 2, 5, 5])),
    ("outside", first(bbox=[-9, 2, 5, 5])),
    ("short polygon", first(segmentation=[[1, 2, 3, 4]])),
    ("short polygon", first(segmentation=[*POLYGON, [1, 2, 3, 4, 5, 6, 7]])),
    ("partly outside", first(bbox=[20, 2, 20, 5])),
    ("annotation id 0", first(id=0)),
    ("crowd region", first(iscrowd=1)),
    ("ignored", first(ignore=1)),
    ("empty image", lambda content: content["images"].append({**content["images"][0], "id": 9})),
    ("class without boxes", categories((1, "cat"), (2, "dog"), (3, "eel"))),
    ("gap in category ids", categories((1, "cat"), (2, "dog"), (9, "eel"))),
]


def test_a_whole_file_has_no_fault():
    report = check_coco(whole(), classes=("cat", "dog"), masks=True)
    assert report.faults == ()
    assert (report.num_images, report.num_annotations) == (3, 4)
    assert report.histogram == {"cat": 2, "dog": 2}


@pytest.mark.parametrize(("kind", "change"), CHANGES)
def test_each_fault_is_found_once_and_named(kind: str, change: Change):
    content = whole()
    change(content)
    faults = {fault.kind: fault for fault in check_coco(content, masks=True).faults}
    assert kind in faults
    others = set(faults) - {kind}
    # What follows from it: a box that does not count leaves its image or its class empty.
    assert all(KINDS[other][0] == "noted" for other in others) or kind in (
        *("no images", "bad category", "bad image"),
        *("bad annotation", "duplicate image id"),
    ), others
    if kind not in ("no images", "no boxes"):
        assert faults[kind].count == 1 and len(faults[kind].examples) == 1


def test_every_kind_of_annotation_fault_has_a_case():
    cases = {kind for kind, _ in CHANGES}
    of_files = {"missing image", "unreadable image", "wrong size", "large image", "small image"}
    of_files |= {"corners"}
    of_classes = {"missing class", "order of classes", "other class"}
    assert cases | of_files | of_classes == set(KINDS)


@pytest.mark.parametrize("told_by", ["area", "polygon"])
def test_boxes_given_by_two_corners_stop(told_by: str):
    content = whole()
    for annotation in content["annotations"]:
        x, y, width, height = box = annotation["bbox"]
        right, bottom = x + width, y + height
        if told_by == "area":
            del annotation["segmentation"]
        else:
            annotation["segmentation"] = [[x, y, right, y, right, bottom, x, bottom]]
        if box[:2] != [0, 0]:  # from there both are the same
            annotation["bbox"] = [x, y, right, bottom]
    (fault,) = check_coco(content).stopping
    assert (fault.kind, fault.indices) == ("corners", (0, 2, 3))

    fixed, done = repair(content, sizes={}, lost=(), masks=False)
    assert [a["bbox"] for a in fixed["annotations"]] == [a["bbox"] for a in whole()["annotations"]]
    assert done == {"boxes of two corners given width and height": 3}


def test_a_single_box_that_could_be_two_corners_is_no_fault():
    content = whole()
    content["annotations"][0].update(bbox=[2, 2, 10, 10], area=64.0)  # a mask's, by chance 8 x 8
    del content["annotations"][0]["segmentation"]
    assert check_coco(content).faults == ()


def dataset(
    content: dict[str, Any], folder: Path, classes=("cat", "dog"), min_size: int = 0
) -> list[dict[str, Any]]:
    """What mmdet makes of a file: the inputs of its images, with boxes and masks."""
    (folder / "all.json").write_text(json.dumps(content))
    for entry in (1, 2, 3, 9):
        Image.new("RGB", (32, 24)).save(folder / f"{entry}.png")
    data = CocoDataset(
        data_root=str(folder),
        ann_file="all.json",
        data_prefix={"img": ""},
        metainfo={"classes": classes},
        filter_cfg={"filter_empty_gt": True, "min_size": min_size},
        pipeline=[
            {"type": "LoadImageFromFile"},
            {"type": "mmdet.LoadAnnotations", "with_bbox": True, "with_mask": True},
            {"type": "mmdet.PackDetInputs", "meta_keys": ("img_id",)},
        ],
    )
    return [data[index] for index in range(len(data))]


def num_boxes(inputs: list[dict[str, Any]]) -> int:
    return sum(len(entry["data_samples"].gt_instances) for entry in inputs)


@pytest.mark.parametrize(
    ("kind", "change"), [(k, c) for k, c in CHANGES if KINDS[k][0] == "dropped"]
)
def test_mmdet_drops_these_boxes_and_learns_the_others(kind, change, tmp_path: Path):
    assert num_boxes(dataset(whole(), tmp_path)) == 4
    content = whole()
    change(content)
    left = (
        4 if kind == "short polygon" and len(content["annotations"][0]["segmentation"]) > 1 else 3
    )
    inputs = dataset(content, tmp_path)
    assert num_boxes(inputs) == left
    for entry in inputs:
        boxes = entry["data_samples"].gt_instances.bboxes.tensor.numpy()
        assert np.isfinite(boxes).all()


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        (kind, change)
        for kind, change in CHANGES
        if kind in ("duplicate annotation id", "no box", "no area", "no mask")
    ],
)
def test_mmdet_ends_with_an_exception_where_the_check_says_so(kind, change, tmp_path: Path):
    content = whole()
    change(content)
    with pytest.raises((AssertionError, KeyError, ValueError, TypeError)):
        dataset(content, tmp_path)
    with pytest.raises(ValueError, match=f"1 x {kind}"):
        require_trainable(tmp_path / "all.json", masks=True)


def test_a_mask_of_another_size_ends_mmdet_with_an_exception(tmp_path: Path):
    content = whole()
    first(segmentation={"size": [32, 24], "counts": [50, 10, 708]})(content)
    with pytest.raises((AssertionError, ValueError)):
        dataset(content, tmp_path)


def test_infinite_boxes_reach_mmdet_so_the_check_stops_them(tmp_path: Path):
    content = whole()
    content["annotations"][0]["bbox"] = [1, 2, math.inf, 4]
    boxes = dataset(content, tmp_path)[0]["data_samples"].gt_instances.bboxes.tensor.numpy()
    assert not np.isfinite(boxes).all()
    with pytest.raises(ValueError, match=r"1 x not finite.*id 1 in image 1, bbox \[1, 2, inf, 4\]"):
        require_trainable(tmp_path / "all.json")


def test_gaps_in_category_ids_and_crowds_are_learned_as_they_should_be(tmp_path: Path):
    content = whole()
    categories((10, "cat"), (70, "dog"))(content)
    for annotation in content["annotations"]:
        annotation["category_id"] = {1: 10, 2: 70}[annotation["category_id"]]
    content["annotations"][3]["iscrowd"] = 1
    inputs = dataset(content, tmp_path)
    labels = [entry["data_samples"].gt_instances.labels.tolist() for entry in inputs]
    assert labels == [[0, 1], [0], []]
    assert len(inputs[2]["data_samples"].ignored_instances) == 1
    report = check_coco(content, classes=("cat", "dog"), masks=True)
    assert {f.kind for f in report.faults} == {"gap in category ids", "crowd region", "empty image"}


def test_mmdet_leaves_small_images_out_and_the_check_says_so(tmp_path: Path):
    content = whole()
    content["images"][0].update(width=200, height=30)
    content["annotations"][1]["segmentation"] = POLYGON  # run lengths have the image's size
    content["images"][1].update(width=40, height=31)
    inputs = dataset(content, tmp_path, min_size=31)
    assert [entry["data_samples"].img_id for entry in inputs] == [1 + 1]
    report = check_coco(content, min_size=31)
    faults = {fault.kind: fault for fault in report.faults}
    assert faults["small image"].indices == (0, 2)
    assert faults["small image"].examples[0] == "1.png is 200x30"
    assert report.histogram == {"cat": num_boxes(inputs), "dog": 0}
    assert {kind for kind in faults if KINDS[kind][0] != "noted"} == {"small image"}
    assert {fault.kind for fault in check_coco(whole(), min_size=25).stopping} == {"no boxes"}
    assert check_coco(whole(), min_size=24).faults == ()


def test_numbers_as_texts_and_names_given_twice_are_shown_as_they_are():
    content = whole()
    first(image_id="1")(content)
    categories((1, "cat"), (2, "cat"))(content)
    examples = {fault.kind: fault.examples[0] for fault in check_coco(content).faults}
    assert examples["unknown image"].endswith("image_id '1'")
    assert examples["bad category"] == "2 'cat', there twice"


def test_classes_in_another_order_would_swap_the_names(tmp_path: Path):
    inputs = dataset(whole(), tmp_path, classes=("dog", "cat"))
    # Label 0 is the first in the file, "cat", though the classes begin with "dog".
    assert inputs[0]["data_samples"].gt_instances.labels.tolist() == [0, 1]
    with pytest.raises(ValueError, match=r"order of classes.*\['dog', 'cat'\], in the file"):
        require_trainable(tmp_path / "all.json", classes=("dog", "cat"))
    assert require_trainable(tmp_path / "all.json", classes=("dog",)).stopping == ()


def test_boxes_of_classes_that_are_not_wanted_are_counted(tmp_path: Path):
    (fault,) = check_coco(whole(), classes=("cat",)).faults[:1]
    assert (fault.kind, fault.effect, fault.count) == ("other class", "dropped", 2)
    assert num_boxes(dataset(whole(), tmp_path, classes=("cat",))) == 4 - fault.count


def test_missing_image_files_are_found_by_listing_their_folders(tmp_path: Path):
    content = whole()
    content["images"][1]["file_name"] = "sub/2.png"
    content["images"].append({"id": 9, "file_name": "9.png", "width": 32, "height": 24})
    (tmp_path / "a.json").write_text(json.dumps(content))
    (tmp_path / "sub").mkdir()
    for name in ("1.png", "sub/2.png"):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=r"2 x missing image: no such file \(\S*3.png; \S*9.png\)"):
        require_trainable(tmp_path / "a.json", folder=tmp_path)
    with pytest.raises(ValueError, match=r"1 x missing image: no such file \(\S*3.png\)"):
        require_trainable(tmp_path / "a.json", folder=tmp_path, evaluated=False)
    with pytest.raises(ValueError, match="2 x missing image"):
        require_trainable(tmp_path / "a.json", folder=tmp_path, evaluated=False, reads_empty=True)
    for name in ("3.png", "9.png"):
        (tmp_path / name).touch()
    assert require_trainable(tmp_path / "a.json", folder=tmp_path).stopping == ()


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_file_in_an_encoding_that_mmdet_does_not_read_is_an_error(encoding: str, tmp_path: Path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(whole()), encoding=encoding)
    with pytest.raises(ValueError, match=r"expected a JSON file in UTF-8, got \S*a.json"):
        read_coco(path)


def test_a_class_that_the_file_lacks_is_named_with_those_it_has():
    (fault,) = check_coco(whole(), classes=("cat", "dog", "eel")).stopping
    assert fault.kind == "missing class"
    assert fault.examples == ("'eel' is not among cat, dog",)


def test_what_only_matters_to_masks_or_evaluation_is_said_only_there():
    content = whole()
    for annotation in content["annotations"]:
        del annotation["segmentation"], annotation["iscrowd"]
    kinds = {fault.kind: fault.count for fault in check_coco(content, masks=True).faults}
    assert kinds == {"no iscrowd": 4, "no mask": 4}
    assert check_coco(content, evaluated=False).faults == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "expected a JSON file"),
        ("[]", "expected COCO's lists images, annotations, categories.*with a list"),
        ('{"images": [], "annotations": []}', "with the keys images, annotations"),
        ('{"images": [1], "annotations": [], "categories": []}', "each of objects"),
        ("\udcff", "expected a JSON file"),
    ],
)
def test_what_is_no_coco_file_is_an_error(text: str, message: str, tmp_path: Path):
    path = tmp_path / "a.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=message):
        read_coco(path)
    with pytest.raises(FileNotFoundError, match="got no file"):
        read_coco(tmp_path / "none.json")


def test_examples_are_the_first_three_and_all_are_counted():
    content = whole()
    for index in range(5, 2005):
        box = {"bbox": [2, 2, 0, 0], "area": 0, "id": index}
        content["annotations"].append({**content["annotations"][0], **box})
    (fault,) = check_coco(content).faults
    assert (fault.kind, fault.count, len(fault.indices)) == ("zero area", 2000, 2000)
    assert [example.split(" in ")[0] for example in fault.examples] == ["id 5", "id 6", "id 7"]
    assert fault.indices[0] == 4


@pytest.mark.parametrize(("number", "found"), [(1, 1.0), (0, 0.0)])
def test_coco_s_evaluation_never_finds_the_object_of_number_0(number: int, found: float):
    content = whole()
    content["images"] = content["images"][:1]
    content["annotations"] = content["annotations"][:1]
    first(id=number, bbox=[2, 2, 10, 10])(content)
    truth = COCO()
    truth.dataset = content
    truth.createIndex()
    answers = [{"image_id": 1, "category_id": 1, "bbox": [2, 2, 10, 10], "score": 0.9}]
    content.setdefault("info", {})
    evaluation = COCOeval(truth, truth.loadRes(answers), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(found)
    kinds = {fault.kind for fault in check_coco(content).faults}
    assert ("annotation id 0" in kinds) == (number == 0)
