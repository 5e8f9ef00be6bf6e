"""Own masks by a few keys: where each goes, and what of it does not fit."""

from __future__ import annotations

import os
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from internimage.integrations.openmmlab.scripts.config_file import read_config
from internimage.integrations.openmmlab.scripts.config_parts import (
    heads,
    leaf_datasets,
    transforms,
)
from internimage.integrations.openmmlab.scripts.data_checks import (
    TEST,
    TRAIN,
    USUAL_ROOTS,
    check_data,
)
from tests.script_runs import ROOT
from tests.segmentation.tiny_segmentation_sets import (
    CLASSES,
    CONFIGS,
    HEIGHT,
    WIDTH,
    write_config,
    write_images,
)

ADE = "ade20k/upernet_internimage_t_512_160k_ade20k.py"
CITYSCAPES = "cityscapes/upernet_internimage_t_512x1024_160k_cityscapes.py"
MAPILLARY = "mapillary/upernet_internimage_l_512x1024_80k_mapillary.py"
MASK2FORMER = "pascal_context/mask2former_internimage_h_480_40k_pascal_context_59.py"
LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")


def leaves(config: Config, loader: str) -> list[dict[str, Any]]:
    return [leaf for _, leaf in leaf_datasets(config, loader)]


def all_leaves(config: Config) -> list[dict[str, Any]]:
    return [leaf for loader in LOADERS for leaf in leaves(config, loader)]


def checks(node: Any) -> set[int]:
    return {step["num_classes"] for step in transforms(node) if step["type"] == "CheckSegMap"}


def test_all_keys_reach_data_sets_heads_and_checks():
    options = {
        "data_root": "mine",
        "train_img_prefix": "a/images",
        "train_seg_map_prefix": "a/masks",
        "val_img_prefix": "b/images",
        "val_seg_map_prefix": "b/masks",
        "classes": ("ground", "road"),
        "palette": [[0, 0, 0], [128, 64, 128]],
        "img_suffix": ".jpeg",
        "seg_map_suffix": "_mask.png",
        "reduce_zero_label": False,
    }
    config = read_config(CONFIGS / ADE, options)
    (train,), (val,), (test,) = (leaves(config, loader) for loader in LOADERS)
    assert train["data_prefix"] == {"img_path": "a/images", "seg_map_path": "a/masks"}
    for leaf in (val, test):
        assert leaf["data_prefix"] == {"img_path": "b/images", "seg_map_path": "b/masks"}
    for leaf in (train, val, test):
        assert leaf["type"] == "BaseSegDataset"
        assert leaf["data_root"] == "mine"
        assert leaf["metainfo"] == {"classes": options["classes"], "palette": options["palette"]}
        for name in ("img_suffix", "seg_map_suffix", "reduce_zero_label"):
            assert leaf[name] == options[name]
        assert checks(leaf["pipeline"]) == {2}
    assert checks(config.tta_pipeline) == {2}
    assert {name: head["num_classes"] for name, head in heads(config)} == {
        "model.decode_head": 2,
        "model.auxiliary_head": 2,
    }


@pytest.mark.parametrize("path", [ADE, CITYSCAPES, MAPILLARY, MASK2FORMER])
def test_without_a_key_of_its_own_every_config_stays_as_it_is(path: str):
    before, after = Config.fromfile(CONFIGS / path), read_config(CONFIGS / path)
    for loader in LOADERS:
        assert leaves(before, loader) == leaves(after, loader)
    assert before.model == after.model


def test_the_classes_of_mask2former_have_a_weight_each_and_one_for_none():
    config = read_config(CONFIGS / MASK2FORMER, {"classes": ("a", "b", "c"), "train_ann_file": ""})
    head = config.model.decode_head
    assert head.num_classes == 3
    assert head.loss_cls.class_weight == [1.0, 1.0, 1.0, 0.1]
    assert leaves(config, "train_dataloader")[0]["ann_file"] == ""


def test_weights_of_other_classes_are_left_out_with_a_warning(tmp_path: Path):
    path = tmp_path / "c.py"
    path.write_text(
        f"_base_ = '{CONFIGS / CITYSCAPES}'\n"
        "loss = dict(class_weight=[1.0] * 19)\n"
        "model = dict(decode_head=dict(num_classes=19, loss_decode=loss))\n"
    )
    with pytest.warns(UserWarning, match="model.decode_head has 19 weights of classes, which 2"):
        config = read_config(path, {"classes": ("a", "b")})
    assert "class_weight" not in config.model.decode_head.loss_decode


def test_a_type_with_classes_of_its_own_keeps_its_defaults_and_says_what_0_is(tmp_path: Path):
    path = tmp_path / "c.py"
    fields = "data_prefix=dict(img_path='i', seg_map_path='m')"
    path.write_text(
        "default_scope = 'mmseg'\n"
        f"train_dataloader = dict(dataset=dict(type='ADE20KDataset', {fields}))\n"
        f"val_dataloader = dict(dataset=dict(type='CityscapesDataset', {fields}))\n"
    )
    with pytest.warns(UserWarning, match="value 0 is no class, 1 is 'wall'"):
        config = read_config(path, {"classes": ("wall", "mine")})
    train, val = all_leaves(config)
    assert (train["type"], val["type"]) == ("BaseSegDataset", "BaseSegDataset")
    assert (train["reduce_zero_label"], train["seg_map_suffix"]) == (True, ".png")
    assert val["img_suffix"] == "_leftImg8bit.png"
    assert val["seg_map_suffix"] == "_gtFine_labelTrainIds.png"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        said = read_config(path, {"classes": ("wall", "mine"), "reduce_zero_label": True})
    assert {leaf["reduce_zero_label"] for leaf in all_leaves(said)} == {True}


def test_some_of_a_types_own_classes_number_the_masks_from_the_first_of_them():
    """A type of mmseg would take them for a choice of its own: label 1 would be ignored."""
    config = read_config(CONFIGS / ADE, {"classes": ("wall", "floor"), "reduce_zero_label": False})
    assert {leaf["type"] for leaf in all_leaves(config)} == {"BaseSegDataset"}


def test_zero_is_reduced_in_the_transform_as_in_the_data_set(tmp_path: Path):
    path = tmp_path / "c.py"
    path.write_text(
        "default_scope = 'mmseg'\n"
        "load = dict(type='mmseg.LoadAnnotations', reduce_zero_label=True)\n"
        "train_dataloader = dict(dataset=dict(type='BaseSegDataset', reduce_zero_label=True,\n"
        "    pipeline=[dict(type='LoadImageFromFile'), load]))\n"
        "tta_pipeline = [dict(type='TestTimeAug', transforms=[[load], []])]\n"
    )
    config = read_config(path, {"reduce_zero_label": False})
    (leaf,) = all_leaves(config)
    assert leaf["reduce_zero_label"] is False
    for steps in (leaf["pipeline"], config.tta_pipeline):
        (load,) = [step for step in transforms(steps) if "LoadAnn" in step["type"]]
        assert load["reduce_zero_label"] is False


def test_one_folder_leaves_one_of_several_data_sets():
    options = {"train_img_prefix": "i", "train_seg_map_prefix": "m", "classes": ("a", "b")}
    (leaf,) = leaves(read_config(CONFIGS / MAPILLARY, options), "train_dataloader")
    assert leaf["data_prefix"] == {"img_path": "i", "seg_map_path": "m"}
    assert leaf["type"] == "BaseSegDataset"


def test_a_folder_that_leaves_one_data_set_asks_for_the_other_folder():
    with pytest.raises(ValueError, match="train_seg_map_prefix beside .* leave 1 of 2 data sets"):
        read_config(CONFIGS / MAPILLARY, {"train_img_prefix": "i"})


def test_a_change_of_the_pipeline_and_own_classes_go_together(tmp_path: Path):
    config = read_config(
        write_config(tmp_path / "c.py", tmp_path),
        {"classes": ("a", "b"), "train_pipeline.4.cat_max_ratio": 0.9},
    )
    (leaf,) = leaves(config, "train_dataloader")
    assert leaf["pipeline"][4]["cat_max_ratio"] == 0.9
    assert checks(leaf["pipeline"]) == {2}


def test_a_files_colours_are_one_for_each_of_its_classes_unless_they_are_inherited(
    tmp_path: Path,
):
    own, other = [[1, 1, 1], [2, 2, 2]], [[1, 1, 1], [2, 2, 2], [3, 3, 3]]
    path = tmp_path / "own.py"
    text = f"_base_ = '{CONFIGS}/digit_scenes/upernet_internimage_n.py'\nclasses = ('a', 'b')\n"
    for more, palette in (("", None), (f"palette = {own}\n", own)):
        path.write_text(text + more)
        with warnings.catch_warnings():  # of the digits' weights
            warnings.simplefilter("ignore")
            config = read_config(path)
        assert config.get("palette") == palette
        assert {str(leaf["metainfo"].get("palette")) for leaf in all_leaves(config)} == {
            str(palette)
        }
    path.write_text(f"{text}palette = {other}\n")
    message = "expected palette = a colour for each of the 2 classes of train_dataloader.dataset, g"
    with warnings.catch_warnings(), pytest.raises(ValueError, match=message):
        warnings.simplefilter("ignore")
        read_config(path)


def crops(config: Config) -> set[tuple[int, int]]:
    steps = transforms([config.train_pipeline, config.train_dataloader])
    return {tuple(step["crop_size"]) for step in steps if step["type"] == "RandomCrop"}


@pytest.mark.parametrize("path", [ADE, MAPILLARY, MASK2FORMER])
@pytest.mark.parametrize("way", ["command line", "file", "file below", "file with a pipeline"])
def test_another_crop_is_that_of_all_images_and_of_the_batches(way: str, path: str, tmp_path: Path):
    options = {}
    (tmp_path / "own.py").write_text(f"_base_ = '{CONFIGS / path}'\n")
    with (tmp_path / "own.py").open("a") as file:
        if way == "command line":
            options = {"crop_size": (96, 128)}
        else:
            file.write("crop_size = (96, 128)\n")
        if way == "file with a pipeline":
            file.write(
                "train_pipeline = [*_base_.train_pipeline[:4],\n"
                "    dict(type='RandomCrop', crop_size=crop_size), dict(type='PackSegInputs')]\n"
            )
    if way == "file below":
        (tmp_path / "below.py").write_text("_base_ = 'own.py'\n")
    config = read_config(tmp_path / ("below.py" if way == "file below" else "own.py"), options)
    assert crops(config) == {(96, 128)}
    assert config.model.data_preprocessor.size == (96, 128)


CONTRADICTIONS = {
    "a crop": ({"train_pipeline.4.crop_size": (640, 640)}, (640, 640), (512, 512)),
    "the batches": ({"model.data_preprocessor.size": (640, 640)}, (512, 512), (640, 640)),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
@pytest.mark.parametrize("is_file", [False, True])
def test_crops_and_batches_of_two_sizes_are_refused(name: str, is_file: bool, tmp_path: Path):
    options, cut, padded = CONTRADICTIONS[name]
    path = CONFIGS / ADE
    if is_file:
        path = tmp_path / "own.py"
        more = {
            "a crop": "train_pipeline = [dict(type='RandomCrop', crop_size=(640, 640))]\n",
            "the batches": "model = dict(data_preprocessor=dict(size=(640, 640)))\n",
        }
        path.write_text(f"_base_ = '{CONFIGS / ADE}'\n{more[name]}")
        options = {}
    with pytest.raises(ValueError) as caught:
        read_config(path, options)
    index = 0 if is_file and name == "a crop" else 4
    assert str(caught.value) == (
        f"expected model.data_preprocessor.size = {cut}, the crop_size of "
        f"train_dataloader.dataset.pipeline.{index} (RandomCrop), got {padded}; "
        f'"crop_size=({cut[0]},{cut[1]})" in --cfg-options sets both'
    )


def test_a_crop_that_is_resized_may_have_another_size_than_the_batches(tmp_path: Path):
    path = tmp_path / "own.py"
    path.write_text(
        f"_base_ = '{CONFIGS / ADE}'\n"
        "train_pipeline = [*_base_.train_pipeline[:4],\n"
        "    dict(type='RandomCrop', crop_size=(256, 256)),\n"
        "    dict(type='Resize', scale=(512, 512)), dict(type='PackSegInputs')]\n"
    )
    config = read_config(path)
    assert (crops(config), config.model.data_preprocessor.size) == ({(256, 256)}, (512, 512))


def test_a_size_of_crops_says_when_nothing_is_cut(tmp_path: Path):
    path = tmp_path / "whole.py"
    path.write_text(
        f"_base_ = '{CONFIGS / 'digit_scenes' / 'upernet_internimage_n.py'}'\n"
        "train_pipeline = _base_.test_pipeline\n"
    )
    with pytest.warns(UserWarning, match="crop_size has no effect: no RandomCrop is among"):
        assert read_config(path, {"crop_size": (64, 64)}).model.data_preprocessor.size == (96, 96)


WRONG_KEYS = {
    "a crop": ({"crop_size": (32, 0)}, r"crop_size = \(height, width\), .* got \(32, 0\)"),
    "one class": ({"classes": ("road",)}, r"at least two names for masks.*got \('road',\)"),
    "a class twice": ({"classes": ("a", "a")}, "classes once each, got a twice"),
    "colours": ({"palette": [[0, 0, 300], [1, 1, 1], [2, 2, 2]]}, r"colours.*got \[0, 0, 300\]"),
    "number of colours": ({"palette": [[0, 0, 0]]}, "each of the 3 classes of train.*got 1"),
    "a suffix": ({"img_suffix": 3}, "the end of a file's name, such as .png, got 3"),
    "a switch": ({"reduce_zero_label": "no"}, "reduce_zero_label = True or False, got 'no'"),
    "a folder": ({"train_seg_map_prefix": 3}, "train_seg_map_prefix = a path, got 3"),
    "a head": (
        {"classes": ("a", "b"), "model.decode_head.num_classes": 3},
        r"model.decode_head.num_classes = 2, the number of classes \(a, b\), got 3",
    ),
}


@pytest.mark.parametrize("name", WRONG_KEYS)
def test_a_value_that_means_nothing_is_refused(name: str, tmp_path: Path):
    options, message = WRONG_KEYS[name]
    with pytest.raises(ValueError, match=message):
        read_config(write_config(tmp_path / "c.py", tmp_path), options)


def test_keys_about_masks_are_refused_by_data_sets_of_boxes():
    path = ROOT / "detection" / "configs" / "coco/mask_rcnn_internimage_t_fpn_1x_coco.py"
    with pytest.raises(ValueError, match="got seg_map_suffix, which only data sets of semantic m"):
        read_config(path, {"seg_map_suffix": ".png"})


def write_cityscapes(folder: Path) -> None:
    """An image and its mask for each part, in the folders and by the names of the data set."""
    names = {"leftImg8bit": "a_leftImg8bit.png", "gtFine": "a_gtFine_labelTrainIds.png"}
    for part in ("train", "val"):
        for kind, name in names.items():
            (folder / kind / part).mkdir(parents=True)
            pixels = np.full((8, 8, 3) if kind == "leftImg8bit" else (8, 8), 3, np.uint8)
            pixels[:4] = 18
            cv2.imwrite(str(folder / kind / part / name), pixels)


def test_a_public_set_is_looked_into_where_it_is_not_usually(tmp_path: Path):
    write_cityscapes(tmp_path)
    mask = tmp_path / "gtFine" / "val" / "a_gtFine_labelTrainIds.png"
    cv2.imwrite(str(mask), np.full((8, 8), 26, np.uint8))  # a number of the raw annotations
    config = read_config(CONFIGS / CITYSCAPES, {"data_root": str(tmp_path)})
    check_data(config, TRAIN[:1])
    with pytest.raises(ValueError, match=rf"{mask}.*26"):
        check_data(config, TRAIN)


OF_ROOTS = {
    # type: data_root, highest label that is right, whether it is looked into
    "NYU where it is usually": ("NYUDepthV2Dataset", "data/nyu_depth_v2/", 40, True),
    "Mapillary elsewhere": ("MapillaryToCityscapesDataset", "data/mine", 65, True),
    "Mapillary where it is usually": ("MapillaryToCityscapesDataset", "data/", 65, False),
    "own ones beside public sets": ("CityscapesDataset", "data/mine", 18, True),
    "public where they are usually": ("CityscapesDataset", "./data/cityscapes", 18, False),
    "a type that somebody registered": ("StreetsDataset", "data/mine", 1, True),
    "a type that lists its images": ("ListedDataset", "data/mine", 1, False),
}


@pytest.mark.parametrize("case", OF_ROOTS)
def test_masks_are_looked_into_but_those_of_public_sets_in_their_place(
    case: str, tmp_path: Path, monkeypatch
):
    name, root, last, is_checked = OF_ROOTS[case]
    own: dict[str, Any] = {"METAINFO": {"classes": ("road", "tree"), "palette": [[0] * 3] * 2}}
    if name == "ListedDataset":
        own["load_data_list"] = lambda self: []
    if name in ("StreetsDataset", "ListedDataset"):
        kind = type(name, (BaseSegDataset,), own)
        monkeypatch.setitem(DATASETS.module_dict, name, kind)
    monkeypatch.chdir(tmp_path)
    for label, folder in ((last, "right"), (last + 1, "wrong")):
        for part in ("i", "m"):
            (tmp_path / root / folder / part).mkdir(parents=True)
            shape = (8, 8, 3) if part == "i" else (8, 8)
            pixels = np.full(shape, label, np.uint8)
            pixels[:4] = 1
            cv2.imwrite(str(tmp_path / root / folder / part / "a.png"), pixels)
    for folder, is_wrong in (("right", False), ("wrong", is_checked)):
        leaf = {"type": name, "data_root": root, "img_suffix": ".png", "seg_map_suffix": ".png"}
        leaf["data_prefix"] = {"img_path": f"{folder}/i", "seg_map_path": f"{folder}/m"}
        leaf["pipeline"] = [{"type": "LoadAnnotations"}]
        config = Config({"default_scope": "mmseg", "train_dataloader": {"dataset": leaf}})
        with pytest.raises(ValueError, match=str(last + 1)) if is_wrong else nullcontext():
            check_data(config, TRAIN[:1])


def test_the_places_of_public_sets_are_those_of_the_configs():
    found: dict[str, set[str]] = {}
    for path in (CONFIGS / "_base_" / "datasets").glob("*.py"):
        for leaf in all_leaves(Config.fromfile(path)):
            found.setdefault(leaf["type"], set()).add(os.path.normpath(leaf["data_root"]))
    for made_by_hand in ("BaseSegDataset", "NYUDepthV2Dataset"):
        del found[made_by_hand]
    assert {name: set(roots) for name, roots in USUAL_ROOTS.items()} == found


def test_a_released_segmentor_may_have_more_outputs_than_a_public_set_has_classes(tmp_path: Path):
    write_cityscapes(tmp_path)
    config = read_config(CONFIGS / CITYSCAPES, {"data_root": str(tmp_path)})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_data(config, TRAIN)
    said = [str(warning.message) for warning in caught]
    assert len(said) == 2  # once a head, for training and validation together
    assert "decode_head.num_classes = 150 is more than the 19 classes of" in said[0]


def config_of(folder: Path) -> Config:
    """A config of the data in a folder, as the scripts read it."""
    return read_config(write_config(folder / "c.py", folder / "data"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_images(tmp_path / "data", num_train=2, num_val=1)
    return tmp_path


def test_data_without_a_fault_passes(folder: Path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_data(config_of(folder), (*TRAIN, *TEST))


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("model.decode_head", r"head.num_classes = 3, .* \(ground, disc, bar\), got 7"),
        ("train_dataloader.dataset.pipeline.2", "CheckSegMap.num_classes = 3 .*got 7"),
    ],
)
def test_numbers_of_classes_must_agree(folder: Path, key: str, message: str):
    config = config_of(folder)
    config.merge_from_dict({f"{key}.num_classes": 7})
    with pytest.raises(ValueError, match=message):
        check_data(config, TRAIN)


def test_a_missing_folder_is_named_with_the_key_that_moves_it(folder: Path):
    for name in ("images", "masks"):
        (folder / "data" / name / "val").rename(folder / name)
        kind = "img" if name == "images" else "seg_map"
        with pytest.raises(ValueError, match=rf"data/{name}/val, got none; .*val_{kind}_prefix"):
            check_data(config_of(folder), TRAIN)
        (folder / name).rename(folder / "data" / name / "val")


@pytest.mark.parametrize("path", [ADE, CITYSCAPES, "tiny"])
def test_an_empty_folder_is_named_for_every_type_of_data_set(path: str, tmp_path: Path):
    """The library's word for it is an array to concatenate."""
    tiny = write_config(tmp_path / "c.py", tmp_path)
    config = read_config(tiny if path == "tiny" else CONFIGS / path, {"data_root": str(tmp_path)})
    for leaf in leaves(config, "train_dataloader"):
        for prefix in leaf["data_prefix"].values():
            (tmp_path / prefix).mkdir(parents=True)
    message = (
        rf"train_dataloader.dataset, got no images of the name {tmp_path}/\S+/train\w*/\*\S*\."
    )
    with warnings.catch_warnings(), pytest.raises(ValueError, match=message):
        warnings.simplefilter("ignore")
        check_data(config, TRAIN[:1])


def test_images_in_linked_folders_are_found(folder: Path):
    """Cityscapes' towns, or a part on another disk; mmseg follows links as well."""
    for kind in ("images", "masks"):
        part = folder / "data" / kind / "train"
        part.rename(folder / kind)
        part.mkdir()
        (part / "town").symlink_to(folder / kind)
    check_data(config_of(folder), TRAIN)


def test_an_empty_list_of_images_is_named(folder: Path):
    (folder / "data" / "train.txt").write_text("\n")
    config = read_config(
        write_config(folder / "c.py", folder / "data"), {"train_ann_file": "train.txt"}
    )
    with pytest.raises(ValueError, match=r"got no images \S*train.txt"):
        check_data(config, TRAIN)


def spoil(folder: Path, kind: str) -> None:
    """Makes one mistake in the training data."""
    masks = folder / "data/masks/train"
    if kind == "no mask":
        (masks / "001.png").unlink()
    elif kind == "size":
        cv2.imwrite(str(masks / "001.png"), np.zeros((HEIGHT, WIDTH + 2), np.uint8))
    elif kind == "labels":
        cv2.imwrite(str(masks / "001.png"), np.full((HEIGHT, WIDTH), len(CLASSES), np.uint8))
    elif kind == "colours":
        cv2.imwrite(str(masks / "001.png"), np.zeros((HEIGHT, WIDTH, 3), np.uint8))


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("no mask", ["001.png"]),
        ("size", ["001.png", "66x48", "64x48"]),
        ("labels", ["001.png", "3"]),
        ("colours", ["001.png"]),
    ],
)
def test_a_fault_in_the_data_is_named_before_a_run(folder: Path, kind: str, words: list[str]):
    spoil(folder, kind)
    with pytest.raises(ValueError, match="masks") as caught:
        check_data(config_of(folder), TRAIN)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "\n" not in str(caught.value)
