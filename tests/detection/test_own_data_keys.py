"""Own data by a few keys: where each goes, in configs of one data set, of several, of others."""

from __future__ import annotations

import ast
import copy
import json
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config

from internimage.integrations.openmmlab.scripts.config_file import read_config
from internimage.integrations.openmmlab.scripts.config_parts import heads, leaf_datasets
from internimage.integrations.openmmlab.scripts.data_checks import (
    TRAIN,
    check_data,
)
from internimage.integrations.openmmlab.scripts.own_classes import class_names_of
from internimage.integrations.openmmlab.scripts.own_pipelines import (
    apply_own_pipelines,
    pipelines_of,
)
from tests.detection.script_runs import CONFIGS

COCO = "coco/mask_rcnn_internimage_t_fpn_1x_coco.py"
CASCADE = "coco/cascade_internimage_l_fpn_1x_coco.py"
DINO = "coco/dino_4scale_internimage_t_1x_coco_layer_wise_lr.py"
LVIS = "lvis/dino_4scale_cbinternimage_h_objects365_lvis_val_ss.py"
CROWD_HUMAN = "crowd_human/cascade_internimage_xl_fpn_3x_crowd_human.py"
OPEN_IMAGES = "openimages/dino_4scale_cbinternimage_h_objects365_openimages_ss.py"
VOC07 = "voc/dino_4scale_cbinternimage_h_objects365_voc07.py"
VOC12 = "voc/dino_4scale_cbinternimage_h_objects365_voc12.py"


def leaves(config: Config, loader: str) -> list[dict[str, Any]]:
    return [leaf for _, leaf in leaf_datasets(config, loader)]


def test_all_keys_reach_data_sets_metrics_and_heads():
    options = {
        "data_root": "mine",
        "train_ann_file": "a/train.json",
        "train_img_prefix": "images/train",
        "val_ann_file": "a/val.json",
        "val_img_prefix": "images/val",
        "classes": ("cat", "traffic light"),
    }
    config = read_config(CONFIGS / COCO, options)
    (train,), (val,), (test,) = (
        leaves(config, f"{part}_dataloader") for part in ("train", "val", "test")
    )
    assert {leaf["data_root"] for leaf in (train, val, test)} == {"mine"}
    assert (train["ann_file"], train["data_prefix"]) == ("a/train.json", {"img": "images/train"})
    for leaf in (val, test):
        assert (leaf["ann_file"], leaf["data_prefix"]) == ("a/val.json", {"img": "images/val"})
    assert {leaf["metainfo"]["classes"] for leaf in (train, val, test)} == {options["classes"]}
    for evaluator in (config.val_evaluator, config.test_evaluator):
        assert evaluator["ann_file"] == "mine/a/val.json"
    assert {name: head["num_classes"] for name, head in heads(config)} == {
        "model.roi_head.bbox_head": 2,
        "model.roi_head.mask_head": 2,
    }


@pytest.mark.parametrize("path", [COCO, LVIS, VOC07, VOC12, CROWD_HUMAN, OPEN_IMAGES])
def test_without_a_key_of_its_own_every_config_stays_as_it_is(path: str):
    before = Config.fromfile(CONFIGS / path)
    after = read_config(CONFIGS / path)
    after._cfg_dict.pop("classes", None), before._cfg_dict.pop("classes", None)
    for loader in ("train_dataloader", "val_dataloader", "test_dataloader"):
        for old, new in zip(leaves(before, loader), leaves(after, loader), strict=True):
            assert old["ann_file"] == new["ann_file"]
            assert old["data_prefix"] == new["data_prefix"]
            assert old["data_root"] == new["data_root"]
    assert after.val_evaluator == before.val_evaluator
    assert after.test_evaluator == before.test_evaluator


def test_the_root_alone_moves_data_sets_and_metrics():
    config = read_config(CONFIGS / COCO, {"data_root": "elsewhere/"})
    assert leaves(config, "val_dataloader")[0]["ann_file"].endswith("instances_val2017.json")
    assert config.val_evaluator.ann_file == "elsewhere/annotations/instances_val2017.json"


def test_a_config_that_inherits_sets_the_keys_as_the_command_line_does(tmp_path: Path):
    path = tmp_path / "mine.py"
    path.write_text(f"_base_ = '{CONFIGS / COCO}'\ndata_root = 'x/'\nval_ann_file = 'v.json'\n")
    config = read_config(path)
    assert config.val_evaluator.ann_file == config.test_evaluator.ann_file == "x/v.json"
    assert leaves(config, "test_dataloader")[0]["ann_file"] == "v.json"
    assert leaves(config, "train_dataloader")[0]["ann_file"].endswith("train2017.json")


def test_every_head_of_a_cascade_and_of_dino_gets_the_number():
    for path, count in ((CASCADE, 4), (DINO, 1)):
        found = heads(read_config(CONFIGS / path, {"classes": ("a", "b", "c")}))
        assert [head["num_classes"] for _, head in found] == [3] * count


def test_wrappers_are_seen_through_and_the_federated_loss_follows():
    config = read_config(CONFIGS / LVIS, {"data_root": "x", "train_ann_file": "t.json"})
    assert config.train_dataloader.dataset.type == "ClassBalancedDataset"
    assert config.train_dataloader.dataset.dataset.ann_file == "t.json"
    losses = [head["fed_loss"] for _, head in heads(config) if head.get("fed_loss")]
    assert [loss["ann_file"] for loss in losses] == ["x/t.json"] * len(losses)
    assert all(loss["num_classes"] == 50 for loss in losses)  # sampled classes, not the head's


def test_lists_name_each_of_several_data_sets_and_one_name_leaves_one():
    years = read_config(CONFIGS / VOC07, {"train_ann_file": ["a.txt", "b.txt"]})
    assert [leaf["ann_file"] for leaf in leaves(years, "train_dataloader")] == ["a.txt", "b.txt"]
    one = read_config(CONFIGS / VOC07, {"train_ann_file": "a.txt", "train_img_prefix": "mine"})
    (leaf,) = leaves(one, "train_dataloader")
    assert (leaf["ann_file"], leaf["data_prefix"]) == ("a.txt", {"sub_data_root": "mine"})
    with pytest.raises(ValueError, match="each of the 2 data sets of train_dataloader, got 3"):
        read_config(CONFIGS / VOC07, {"train_ann_file": ["a", "b", "c"]})


def test_a_test_on_purpose_of_its_own_stays_until_the_command_line_says_otherwise():
    own = leaves(Config.fromfile(CONFIGS / VOC12), "test_dataloader")[0]["ann_file"]
    validated = leaves(Config.fromfile(CONFIGS / VOC12), "val_dataloader")[0]["ann_file"]
    assert own != validated
    assert leaves(read_config(CONFIGS / VOC12), "test_dataloader")[0]["ann_file"] == own
    given = read_config(CONFIGS / VOC12, {"val_ann_file": "mine.txt"})
    assert leaves(given, "test_dataloader")[0]["ann_file"] == "mine.txt"


def test_one_class_may_be_a_word_and_numbers_become_names():
    assert read_config(CONFIGS / COCO, {"classes": "person"}).classes == ("person",)
    assert read_config(CONFIGS / COCO, {"classes": [1, 2]}).classes == ("1", "2")


def test_weights_of_classes_follow_their_number(tmp_path: Path):
    path = tmp_path / "c.py"
    loss = "dict(type='CrossEntropyLoss', class_weight=[1.0] * 5 + [0.1])"
    path.write_text(f"model = dict(decode_head=dict(num_classes=5, loss_cls={loss}))\n")
    config = read_config(path, {"classes": ("a", "b")})
    assert config.model.decode_head.loss_cls.class_weight == [1.0, 1.0, 0.1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": ()}, "expected classes = names"),
        ({"classes": 3}, "expected classes = names"),
        ({"data_root": 3}, "expected data_root = a path, got 3"),
        ({"train_ann_file": 3}, "expected train_ann_file = a path, got 3"),
        ({"klasses": ("a",)}, "did you mean classes"),
        ({"train_annfile": "x"}, "did you mean train_ann_file"),
    ],
)
def test_a_wrong_key_or_value_is_refused(options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        read_config(CONFIGS / COCO, options)


def test_classes_of_a_type_of_data_set_are_known_without_building_it():
    config = read_config(CONFIGS / COCO)
    names = class_names_of(config, leaves(config, "train_dataloader")[0])
    assert names is not None
    assert (len(names), names[0], names[-1]) == (80, "person", "toothbrush")


def pipeline(*, flip: bool = True, side: int = 640) -> list[dict[str, Any]]:
    """A pipeline as a config of one's own may have it."""
    steps: list[dict[str, Any]] = [
        {"type": "LoadImageFromFile"},
        {"type": "LoadAnnotations", "with_bbox": True, "with_mask": True},
        {"type": "Resize", "scale": (side, side), "keep_ratio": True},
    ]
    return [*steps, *([{"type": "RandomFlip", "prob": 0.5}] if flip else []), {"type": "Pack"}]


def inherit(folder: Path, base: str, **values: Any) -> Config:
    """A config of one's own, two files away from a shipped one."""
    (folder / "middle.py").write_text(f"_base_ = {str(CONFIGS / base)!r}\n")
    lines = [f"{key} = {value!r}\n" for key, value in values.items()]
    (folder / "own.py").write_text("_base_ = 'middle.py'\n" + "".join(lines))
    return read_config(folder / "own.py")


@pytest.mark.slow
@pytest.mark.parametrize("path", [COCO, LVIS, VOC07])
def test_pipelines_of_a_config_of_ones_own_reach_its_data_sets(path: str, tmp_path: Path):
    """Also those in wrappers; what the config does not set stays."""
    before = read_config(CONFIGS / path)
    own = pipeline(flip=False)
    config = inherit(tmp_path, path, train_pipeline=own)
    assert [leaf["pipeline"] for leaf in leaves(config, "train_dataloader")] == [own] * len(
        leaves(before, "train_dataloader")
    )
    for loader in ("val_dataloader", "test_dataloader"):
        assert config[loader] == before[loader]
    config = inherit(tmp_path, path, test_pipeline=own)
    assert config.train_dataloader == before.train_dataloader
    for loader in ("val_dataloader", "test_dataloader"):
        assert [leaf["pipeline"] for leaf in leaves(config, loader)] == [own]


@pytest.mark.slow
def test_every_config_keeps_the_pipelines_that_its_file_says():
    paths = [path for path in CONFIGS.rglob("*.py") if "_base_" not in path.parts]
    assert len(paths) > 25
    for path in paths:
        config = Config.fromfile(path)
        before = copy.deepcopy(config)
        apply_own_pipelines(config, path, before=pipelines_of(config))
        for loader in ("train_dataloader", "val_dataloader", "test_dataloader"):
            assert config[loader] == before[loader], path


@pytest.mark.slow
def test_a_data_set_with_a_pipeline_of_its_own_keeps_it(tmp_path: Path):
    own = pipeline(side=320)
    config = inherit(tmp_path, COCO, train_dataloader={"dataset": {"pipeline": own}})
    assert leaves(config, "train_dataloader")[0]["pipeline"] == own
    config = inherit(
        tmp_path,
        COCO,
        train_pipeline=pipeline(side=640),
        train_dataloader={"dataset": {"pipeline": own}},
    )
    assert leaves(config, "train_dataloader")[0]["pipeline"] == own


def test_a_base_of_mmdet_gives_its_pipelines_up_as_well(tmp_path: Path):
    """What is inherited from there carries the library's mark, which is no difference."""
    own = pipeline()
    path = tmp_path / "own.py"
    base = "mmdet::_base_/datasets/coco_instance.py"
    path.write_text(f"_base_ = {base!r}\ntrain_pipeline = {own!r}\n")
    assert leaves(read_config(path), "train_dataloader")[0]["pipeline"] == own


@pytest.mark.slow
def test_a_step_of_a_pipeline_is_an_option_of_the_command_line(tmp_path: Path):
    config = read_config(CONFIGS / COCO, {"train_pipeline.3.prob": 0.0})
    assert leaves(config, "train_dataloader")[0]["pipeline"][3] == {"type": "RandomFlip", "prob": 0}
    inherit(tmp_path, COCO, train_pipeline=pipeline())
    config = read_config(tmp_path / "own.py", {"train_pipeline.2.scale": (99, 99)})
    assert leaves(config, "train_dataloader")[0]["pipeline"] == pipeline(side=99)


def test_the_settings_for_pipelines_on_the_page_do_what_it_says():
    page = (CONFIGS.parents[1] / "docs" / "custom_detection.md").read_text()
    given = re.findall(r"`((?:train|test)_pipeline\.\S+)=(\S+)`", page)
    config = read_config(CONFIGS / COCO, {key: ast.literal_eval(value) for key, value in given})
    (train,), (test,) = (leaves(config, f"{part}_dataloader") for part in ("train", "test"))
    steps = {step["type"]: step for step in train["pipeline"]}
    assert (steps["RandomFlip"]["prob"], steps["Resize"]["scale"]) == (0, (640, 640))
    assert {step["type"]: step for step in test["pipeline"]}["Resize"]["scale"] == (640, 640)


def test_a_pipeline_is_a_list_of_transforms(tmp_path: Path):
    with pytest.raises(ValueError, match="expected train_pipeline = a list of transforms, got 3"):
        inherit(tmp_path, COCO, train_pipeline=3)


def test_an_error_in_a_base_is_told_with_its_file_and_line(tmp_path: Path):
    (tmp_path / "base.py").write_text("a = 1\nb = nothing\n")
    (tmp_path / "leaf.py").write_text("_base_ = 'base.py'\n")
    with pytest.raises(ValueError, match=r"leaf.py, got NameError in \S*base.py, line 2: name 'no"):
        read_config(tmp_path / "leaf.py")
    (tmp_path / "base.py").write_text("a = 1\nb = (\n")
    with pytest.raises(ValueError, match=r"expected Python in \S*base.py, got .* in line 2"):
        read_config(tmp_path / "leaf.py")


@pytest.mark.parametrize("name", ["train.json", "instances_train2017.json"])
@pytest.mark.parametrize(
    ("names", "box", "message"),
    [
        (("dog", "cat"), [1, 2, 3, 4], "order of classes"),
        (("cat", "dog"), [float("nan"), 2, 3, 4], "not finite"),
    ],
)
def test_own_annotations_are_checked_under_every_name(
    name: str, names: tuple[str, ...], box: list[float], message: str, tmp_path: Path
):
    """The name of COCO's own file is what own data have that set the root alone."""
    config = own_data(tmp_path, name, names, box)
    with pytest.raises(ValueError, match=message):
        check_data(config, TRAIN[:1])


def test_images_that_are_too_small_warn_by_the_size_of_the_config(tmp_path: Path):
    config = own_data(tmp_path, "a.json", ("cat", "dog"), [1, 2, 3, 4])
    with pytest.warns(UserWarning, match=r"train_dataloader.dataset: 1 x small image: .*31x90"):
        check_data(config, TRAIN[:1])
    config.train_dataloader.dataset.filter_cfg.min_size = 31
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_data(config, TRAIN[:1])


def own_data(folder: Path, name: str, names: tuple[str, ...], box: list[float]) -> Config:
    """COCO's config for two images, one of them smaller than 32 pixels."""
    (folder / "images").mkdir()
    shape = [[2, 2, 12, 2, 12, 12]]
    content = {
        "images": [
            {"id": i, "file_name": f"{i}.jpg", "width": width, "height": 90}
            for i, width in ((1, 90), (2, 31))
        ],
        "annotations": [
            {"id": i, "image_id": i, "category_id": i, "bbox": box, "area": 12, "iscrowd": 0,
             "segmentation": shape}
            for i in (1, 2)
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }  # fmt: skip
    (folder / name).write_text(json.dumps(content))
    for i in (1, 2):
        (folder / "images" / f"{i}.jpg").touch()
    keys = {"data_root": str(folder), "train_ann_file": name, "train_img_prefix": "images"}
    return read_config(CONFIGS / COCO, {**keys, "classes": names})


def write_helper(folder: Path) -> Path:
    """A config with a name for itself alone."""
    (folder / "helper.py").write_text("max_epochs = 1\ntrain_cfg = dict(max_epochs=max_epochs)\n")
    return folder / "helper.py"


@pytest.mark.slow
def test_an_option_that_nobody_reads_warns(tmp_path: Path):
    with pytest.warns(UserWarning, match="max_epochs has no effect: max_epochs is only used"):
        read_config(write_helper(tmp_path), {"max_epochs": 2})
    own = {"train_dataloader.dataset.pipeline": [], "train_pipeline.0.type": "LoadImageFromNDArray"}
    with pytest.warns(UserWarning, match="train_pipeline has no effect: the data sets of train_da"):
        read_config(CONFIGS / COCO, own)
    with pytest.warns(UserWarning, match="adds model.test_cfg.rcnn.score_thrs.*mean score_thr"):
        read_config(CONFIGS / COCO, {"model.test_cfg.rcnn.score_thrs": 0.1})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_config(CONFIGS / COCO, {"model.backbone.with_cp": True, "model.test_cfg.rcnn.x": 1})
        read_config(CONFIGS / COCO, {"load_from": "a.pth", "randomness.seed": 1})
