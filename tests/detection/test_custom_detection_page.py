"""docs/custom_detection.md, done as its reader would: each command is run as it stands there."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from PIL import Image

from internimage.integrations.openmmlab.data.coco_faults import KINDS
from internimage.integrations.openmmlab.scripts.arguments import parse_train
from internimage.integrations.openmmlab.scripts.config_file import read_config
from tests.detection.tiny_coco import CLASSES, write_config, write_images
from tests.documented_pages import FEW_STEPS, ROOT, Page, holder_of, run
from tools import odgt_to_coco, voc_to_coco, yolo_to_coco

PAGE = Page("custom_detection.md")
RECIPE = "detection/configs/coco/mask_rcnn_internimage_t_fpn_1x_coco.py"


@pytest.mark.slow
def test_the_commands_for_the_digits_lead_to_pictures(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    places = {"runs/": f"{tmp_path}/"}
    (scenes,) = PAGE.commands("python tools/make_digit_scenes.py", digits=True)
    assert "8 scenes" in run([*scenes, "--train", "8", "--val", "4"], places)
    (check,) = PAGE.commands("python tools/check_coco.py", digits=True)
    assert "8 images (0 empty)" in run(check, places)
    (train,) = PAGE.commands("python detection/train.py", digits=True)
    assert train[-2] == "--cfg-options"  # so that more may follow
    run([*train, *FEW_STEPS], places)
    metrics = json.loads((tmp_path / "digits" / "metrics.json").read_text())
    assert {"bbox_mAP", "segm_mAP"} <= set(metrics)
    # The page names the checkpoint that the config leaves.
    (test,) = PAGE.commands("python detection/test.py", digits=True)
    (name,) = {word for word in test if word.endswith(".pth")}
    steps = Config.fromfile(ROOT / train[2]).train_cfg.max_iters
    assert name == f"runs/digits/iter_{steps}.pth"
    places = {f"iter_{steps}": "iter_2"} | places
    run([*test, "--work-dir", str(tmp_path / "tested")], places)
    (detect,) = PAGE.commands("internimage detect", digits=True)
    run([*detect, "--score-threshold", "0"], places)
    with Image.open(tmp_path / "digits" / "found" / "00000.png") as picture:
        assert picture.size == (128, 128)
    assert json.loads((tmp_path / "digits" / "found" / "00000.json").read_text())["detections"]


@pytest.mark.slow
def test_the_commands_for_own_data_lead_from_check_to_prediction(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    # The page's pets are discs and bars here, its T a tiny model, its 12 epochs are one.
    write_images(tmp_path / "data" / "pets", num_train=8, num_val=2)
    names = dict(zip(CLASSES, ("cat", "dog"), strict=True))
    for part in ("train", "val"):
        path = tmp_path / "data" / "pets" / "annotations" / f"{part}.json"
        content = json.loads(path.read_text())
        for category in content["categories"]:
            category["name"] = names[category["name"]]
        path.write_text(json.dumps(content))
    recipe = tmp_path / Path(RECIPE).name
    write_config(recipe, tmp_path / "nowhere", "train_cfg = dict(max_epochs=1)\n")
    (check,) = PAGE.commands("python tools/check_coco.py")
    (train, _) = PAGE.commands("python detection/train.py")
    (test,) = PAGE.commands("python detection/test.py")
    (detect,) = PAGE.commands("internimage detect")
    places = {"data/pets": f"{tmp_path}/data/pets", "runs/": f"{tmp_path}/", "epoch_12": "epoch_1"}
    places |= {RECIPE: str(recipe), "photo.jpg": f"{tmp_path}/data/pets/val/000.png"}
    assert "8 images (0 empty)" in run(check, places)
    # What it goes on from: a detector of the same kind, as an older one of three classes.
    config = read_config(recipe)
    config.model.roi_head.bbox_head.num_classes = 3
    torch.save({"state_dict": MODELS.build(config.model).state_dict()}, tmp_path / "released.pth")
    train[train.index("--load-from") + 1] = str(tmp_path / "released.pth")
    run(train, places)
    metrics = json.loads((tmp_path / "pets" / "metrics.json").read_text())
    assert {"bbox_mAP", "segm_mAP", "cat_precision", "dog_precision"} <= set(metrics)
    run([*test, "--work-dir", str(tmp_path / "tested")], places)
    assert (tmp_path / "tested" / "metrics.json").is_file()
    run([*detect, "--score-threshold", "0"], places)
    answer = json.loads((tmp_path / "pets" / "found" / "000.json").read_text())
    assert {found["class_name"] for found in answer["detections"]} <= {"cat", "dog"}


def test_the_config_of_the_page_holds_what_its_command_sets(tmp_path: Path):
    assert len(PAGE.config().splitlines()) <= 10
    (tmp_path / "pets.py").write_text(PAGE.config())
    own = read_config(tmp_path / "pets.py")
    (words, again) = PAGE.commands("python detection/train.py")
    assert "configs/pets.py" in again
    flags = parse_train("train.py", words[2:])
    given = read_config(ROOT / flags.config, flags.cfg_options)
    assert own.load_from == flags.load_from
    for loader in ("train_dataloader", "val_dataloader", "test_dataloader"):
        ours, theirs = own[loader].dataset, given[loader].dataset
        assert Path(ours.data_root) == Path(theirs.data_root) == Path("data/pets")
        assert tuple(ours.metainfo.classes) == tuple(theirs.metainfo.classes) == ("cat", "dog")
        assert (ours.ann_file, ours.data_prefix) == (theirs.ann_file, theirs.data_prefix)
    for config in (own, given):
        assert config.model.roi_head.bbox_head.num_classes == 2
        assert config.model.roi_head.mask_head.num_classes == 2
        assert Path(config.val_evaluator.ann_file) == Path("data/pets/annotations/val.json")


def test_the_settings_that_the_page_suggests_are_those_of_the_config():
    config = read_config(ROOT / RECIPE)
    assert len(PAGE.settings()) >= 6
    for key in PAGE.settings():
        holder, name = holder_of(config, key)
        assert name in holder or name == "frozen_stages", key


def test_the_faults_that_the_page_explains_are_those_of_the_check():
    kinds = PAGE.kinds_of_fault() & set(KINDS)
    assert kinds >= {"missing class", "order of classes", "no mask", "not finite", "wrong size"}


def test_the_converters_take_the_commands_of_the_page(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
    for year in ("VOC2007", "VOC2012"):
        for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
            Path(year, folder).mkdir(parents=True)
        Image.new("RGB", (20, 10)).save(Path(year, "JPEGImages", "1.jpg"))
        xml = f"<annotation><object><name>cat</name>{box}</object></annotation>"
        Path(year, "Annotations", "1.xml").write_text(xml)
        Path(year, "ImageSets", "Main", "trainval.txt").write_text("1\n")
    for folder in ("images/train", "labels/train", "Images"):
        Path(folder).mkdir(parents=True)
    for path in ("images/train/1.jpg", "Images/1.jpg"):
        shutil.copy("VOC2007/JPEGImages/1.jpg", path)
    Path("labels/train/1.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    Path("data.yaml").write_text("names: [cat]\n")
    person = {"tag": "person", "fbox": [1, 1, 5, 5]}
    Path("annotation_train.odgt").write_text(json.dumps({"ID": "1", "gtboxes": [person]}))
    counts = []
    for tool in (voc_to_coco, yolo_to_coco, odgt_to_coco):
        (words,) = PAGE.commands(f"python tools/{tool.NAME}.py")
        out = words[words.index("--out") + 1]
        assert tool.main([*words[2:], "--overwrite"]) == 0
        counts.append(len(json.loads(Path(out).read_text())["annotations"]))
    assert counts == [2, 1, 1]
