"""Training on annotations with faults: it works as it should, or ends at once with one line."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from internimage.integrations.openmmlab.scripts.config_file import read_config
from internimage.integrations.openmmlab.scripts.data_checks import TRAIN, check_data
from internimage.integrations.openmmlab.scripts.train import main
from tests.detection.script_runs import CONFIGS, run_script
from tests.detection.tiny_coco import write_config, write_images

Content = dict[str, Any]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_config(tmp_path / "tiny.py", write_images(tmp_path / "data", num_train=8, num_val=2))
    return tmp_path


def change(folder: Path, part: str, edit: Callable[[Content], None]) -> None:
    path = folder / "data" / "annotations" / f"{part}.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


@pytest.mark.slow
def test_what_mmdet_drops_is_warned_of_and_the_rest_is_learned(folder: Path):
    def edit(content: Content) -> None:
        # The first image has no box that counts, the second none at all.
        boxes = [a for a in content["annotations"] if a["image_id"] == 1]
        boxes[0]["bbox"] = [5, 5, 0, 10]
        boxes[1]["bbox"] = [500, 5, 10, 10]
        content["annotations"] = [a for a in content["annotations"] if a["image_id"] != 2]
        third = [a for a in content["annotations"] if a["image_id"] == 3]
        third[0]["bbox"] = [60, 5, -30, 10]
        third[1]["iscrowd"] = 1
        content["annotations"][-1]["category_id"] = 99

    change(folder, "train", edit)
    change(folder, "val", lambda content: content["annotations"][0].update(iscrowd=1))
    done = run_script(
        *("train.py", "tiny.py", "--work-dir", "run", "--cfg-options", "train_cfg.max_epochs=1"),
        folder=folder,
    )
    assert done.code == 0, done.errors
    for kind in ("zero area", "outside", "negative size", "unknown category"):
        assert kind in done.errors + done.printed
    history = json.loads((folder / "run" / "history.json").read_text())
    assert all(math.isfinite(loss) for _, loss in history["loss"])
    assert "bbox_mAP" in json.loads((folder / "run" / "metrics.json").read_text())


def nan_box(content: Content) -> None:
    content["annotations"][3]["bbox"][2] = math.nan


def infinite_box(content: Content) -> None:
    content["annotations"][3]["bbox"][2] = math.inf


def same_numbers(content: Content) -> None:
    content["annotations"][3]["id"] = content["annotations"][4]["id"]


def no_masks(content: Content) -> None:
    for annotation in content["annotations"]:
        del annotation["segmentation"]


def no_areas(content: Content) -> None:
    for annotation in content["annotations"]:
        del annotation["area"]


def no_boxes(content: Content) -> None:
    content["annotations"].clear()


def other_names(content: Content) -> None:
    content["categories"][0]["name"] = "ring"


def other_order(content: Content) -> None:
    content["categories"].reverse()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, None),
        ({"type": "mmdet.CocoDataset"}, None),
        ({"filter_cfg": {"filter_empty_gt": False}}, "1 x missing image"),
        ({"filter_cfg": None}, "1 x missing image"),
    ],
)
def test_images_that_the_training_reads_must_be_there(
    changes: dict[str, Any], message: str | None, folder: Path
):
    def edit(content: Content) -> None:
        content["images"].append({"id": 99, "file_name": "no.png", "width": 32, "height": 24})

    change(folder, "train", edit)
    config = read_config(folder / "tiny.py")
    config.train_dataloader.dataset.update(changes)
    if message is None:
        check_data(config, TRAIN)
        change(folder, "train", nan_box)
        message = "1 x not finite"
    with pytest.raises(ValueError, match=message):
        check_data(config, TRAIN)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (nan_box, "1 x not finite"),
        (infinite_box, "1 x not finite"),
        (same_numbers, "1 x duplicate annotation id"),
        (no_masks, "16 x no mask"),
        (no_areas, "16 x no area"),
        (no_boxes, "1 x no boxes"),
        (other_names, "missing class"),
        (other_order, "order of classes"),
    ],
)
@pytest.mark.usefixtures("signals_and_warnings_as_before")
def test_what_would_end_it_later_ends_it_at_once(
    edit: Callable[[Content], None], message: str, folder: Path, capsys
):
    change(folder, "train", edit)
    code = main("train.py", CONFIGS, [str(folder / "tiny.py"), "--work-dir", str(folder / "run")])
    errors = capsys.readouterr().err
    assert (code, errors.count("\n")) == (2, 1), errors
    assert message in errors and "train.json" in errors
    assert not list((folder / "run").glob("*.pth"))
