"""docs/custom_segmentation.md, done as its reader would: each command is run as it stands there."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from PIL import Image

from internimage.integrations.openmmlab.data.mask_check import MASK_KINDS
from internimage.integrations.openmmlab.scripts.arguments import parse_train
from internimage.integrations.openmmlab.scripts.config_file import read_config
from internimage.integrations.openmmlab.scripts.config_parts import LOADERS, leaf_datasets
from tests.documented_pages import FEW_STEPS, ROOT, Page, holder_of, moved, run
from tests.segmentation.tiny_segmentation_sets import CONFIGS, write_config, write_images
from tools import check_masks, coco_to_masks, colours_to_masks, labelme_to_masks, make_digit_scenes

PAGE = Page("custom_segmentation.md")
RECIPE = "segmentation/configs/ade20k/upernet_internimage_t_512_160k_ade20k.py"
NEW_KEYS = ("frozen_stages", "class_weight", "test_cfg")  # settings with a default elsewhere


@pytest.mark.slow
def test_the_commands_for_the_digits_lead_to_pictures(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    places = {"runs/": f"{tmp_path}/"}
    (scenes,) = PAGE.commands("python tools/make_digit_scenes.py", digits=True)
    assert make_digit_scenes.main([*moved(scenes, places)[2:], "--train", "8", "--val", "4"]) == 0
    (check,) = PAGE.commands("python tools/check_masks.py", digits=True)
    assert check_masks.main(moved(check, places)[2:]) == 0
    assert "8 images, 8 masks read, 11 classes" in capsys.readouterr().out
    (train,) = PAGE.commands("python segmentation/train.py", digits=True)
    assert train[-2] == "--cfg-options"  # so that more may follow
    run([*train, *FEW_STEPS], places)
    metrics = json.loads((tmp_path / "digits" / "metrics.json").read_text())
    assert {"mIoU", "mAcc", "aAcc"} <= set(metrics)
    # The page names the checkpoint that the config leaves.
    (test,) = PAGE.commands("python segmentation/test.py", digits=True)
    (name,) = {word for word in test if word.endswith(".pth")}
    steps = Config.fromfile(ROOT / train[2]).train_cfg.max_iters
    assert name == f"runs/digits/iter_{steps}.pth"
    places = {f"iter_{steps}": "iter_2"} | places
    run([*test, "--work-dir", str(tmp_path / "tested")], places)
    assert (tmp_path / "tested" / "metrics.json").is_file()
    (segment,) = PAGE.commands("internimage segment", digits=True)
    run(segment, places)
    with Image.open(tmp_path / "digits" / "found" / "00000.png") as picture:
        assert picture.size == (128, 128)
    assert (tmp_path / "digits" / "found" / "00000.json").is_file()


@pytest.mark.slow
def test_the_commands_for_own_data_lead_from_check_to_prediction(
    tmp_path: Path, monkeypatch, capsys
):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    # The page's streets are discs and bars here, as JPEG; its T a tiny model, its steps are two.
    data = write_images(tmp_path / "data" / "streets", num_train=4, num_val=2)
    for path in sorted((data / "images").rglob("*.png")):
        with Image.open(path) as image:
            image.save(path.with_suffix(".jpg"))
        path.unlink()
    recipe = tmp_path / Path(RECIPE).name
    write_config(recipe, tmp_path / "nowhere", 'img_suffix = ".jpg"\nreduce_zero_label = True\n')
    (check,) = PAGE.commands("python tools/check_masks.py")
    (train, _) = PAGE.commands("python segmentation/train.py")
    (test,) = PAGE.commands("python segmentation/test.py")
    (segment,) = PAGE.commands("internimage segment")
    places = {
        "data/streets": str(data),
        "runs/": f"{tmp_path}/",
        "iter_20000": "iter_2",
        RECIPE: str(recipe),
        "photo.jpg": f"{data}/images/val/000.jpg",
        "max_iters=20000": "max_iters=2",
        "val_interval=2000": "val_interval=2",
        "param_scheduler.1.end=20001": "default_hooks.checkpoint.interval=2",
    }
    assert check_masks.main(moved(check, places)[2:]) == 0
    assert "4 images, 4 masks read, 3 classes" in capsys.readouterr().out
    # What it goes on from: a segmentor of the same kind, of other classes.
    config = read_config(recipe)
    init_default_scope(config.default_scope)
    for head in (config.model.decode_head, config.model.auxiliary_head):
        head.num_classes = 5
    torch.save({"state_dict": MODELS.build(config.model).state_dict()}, tmp_path / "released.pth")
    train[train.index("--load-from") + 1] = str(tmp_path / "released.pth")
    run(train, places)
    metrics = json.loads((tmp_path / "streets" / "metrics.json").read_text())
    assert {"mIoU", "mAcc", "aAcc"} <= set(metrics)
    run([*test, "--work-dir", str(tmp_path / "tested")], places)
    assert (tmp_path / "tested" / "metrics.json").is_file()
    run(segment, places)
    answer = json.loads((tmp_path / "streets" / "found" / "000.json").read_text())
    named = json.dumps(answer)
    assert any(name in named for name in ("background", "road", "house"))


def test_the_config_of_the_page_holds_what_its_command_sets(tmp_path: Path):
    assert len(PAGE.config().splitlines()) <= 11
    (tmp_path / "streets.py").write_text(PAGE.config())
    own = read_config(tmp_path / "streets.py")
    (words, again) = PAGE.commands("python segmentation/train.py")
    assert "configs/streets.py" in again
    flags = parse_train("train.py", words[2:])
    given = read_config(ROOT / flags.config, flags.cfg_options)
    assert own.load_from == flags.load_from
    for loader in ("train_dataloader", "val_dataloader", "test_dataloader"):
        ours, theirs = own[loader].dataset, given[loader].dataset
        assert ours.type == theirs.type == "BaseSegDataset"
        assert Path(ours.data_root) == Path(theirs.data_root) == Path("data/streets")
        assert tuple(ours.metainfo.classes) == tuple(theirs.metainfo.classes)
        assert tuple(ours.metainfo.classes) == ("background", "road", "house")
        assert ours.reduce_zero_label is theirs.reduce_zero_label is False
        assert ours.data_prefix == theirs.data_prefix
    for config in (own, given):
        assert config.model.decode_head.num_classes == 3
        assert config.model.auxiliary_head.num_classes == 3


def test_the_settings_that_the_page_suggests_are_those_of_the_config():
    config = read_config(ROOT / RECIPE)
    assert len(PAGE.settings()) >= 8
    for key in PAGE.settings():
        holder, name = holder_of(config, key)
        assert name in holder or name in NEW_KEYS, key
    assert config.train_pipeline[4].type == "RandomCrop"
    assert config.train_pipeline[5].type == "RandomFlip"
    assert config.train_pipeline[3].scale == (2048, 512)
    assert config.test_pipeline[1].type == "Resize"
    # Where the rate reaches zero, one step behind the last.
    assert config.param_scheduler[1].end == config.train_cfg.max_iters + 1


def test_empty_lists_of_names_mean_all_images_as_the_page_says():
    assert "`train_ann_file= val_ann_file=`" in PAGE.text
    path = CONFIGS / "nyu_depth_v2" / "mask2former_internimage_h_480_40k_nyu.py"
    options = parse_train("", [str(path), "--cfg-options", "train_ann_file=", "val_ann_file="])
    config = read_config(path, options.cfg_options)
    for loader in LOADERS:
        assert {leaf["ann_file"] for _, leaf in leaf_datasets(config, loader)} == {""}


def test_the_faults_that_the_page_explains_are_those_of_the_check():
    kinds = PAGE.kinds_of_fault() & set(MASK_KINDS)
    assert kinds >= {"no images", "missing mask", "unknown label", "colour mask", "wrong size"}
    assert kinds >= {"black and white", "lossy mask", "other suffix", "mask without image"}


def test_the_converters_take_the_commands_of_the_page(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("coloured/train", "annotations", "labelme/train"):
        Path(folder).mkdir(parents=True)
    (table,) = PAGE.text.split("```text\n")[1:]
    Path("colours.txt").write_text(table.split("```")[0])
    coloured = np.zeros((2, 3, 3), np.uint8)
    coloured[:] = [(128, 64, 128), (70, 70, 70), (255, 255, 255)]
    cv2.imwrite("coloured/train/1.png", coloured[..., ::-1])
    outline = [0, 0, 3, 0, 3, 2, 0, 2]
    thing = {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": 6}
    content = {
        "images": [{"id": 1, "file_name": "1.jpg", "width": 3, "height": 2}],
        "annotations": [thing | {"bbox": [0, 0, 3, 2], "segmentation": [outline]}],
        "categories": [{"id": 1, "name": "road"}],
    }
    Path("annotations/train.json").write_text(json.dumps(content))
    shape = {"label": "house", "shape_type": "rectangle", "points": [[1, 0], [2, 1]]}
    content = {"imageWidth": 3, "imageHeight": 2, "shapes": [shape]}
    Path("labelme/train/1.json").write_text(json.dumps(content))
    rows = []
    for tool in (colours_to_masks, coco_to_masks, labelme_to_masks):
        (words,) = PAGE.commands(f"python tools/{tool.NAME}.py")
        assert tool.main([*words[2:], "--overwrite"]) == 0
        with Image.open("data/streets/masks/train/1.png") as mask:
            rows.append(np.asarray(mask)[0].tolist())
    assert rows == [[0, 1, 255], [1, 1, 1], [0, 2, 2]]
