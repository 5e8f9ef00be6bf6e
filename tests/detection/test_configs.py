"""Every config has the original's name and its numbers, but for the differences listed here."""

from __future__ import annotations

import fnmatch
import re
from typing import Any

import pytest
from mmengine.config import Config

from internimage.hub import PTH_REPOSITORY, find_release
from tests.config_facts import ABSENT, Difference, differing, leaves, listed, original_names
from tests.detection.config_facts import (
    CONFIGS,
    current_facts,
    load_current,
    load_originals,
    original_facts,
    original_pipeline,
)

ORIGINALS = load_originals()
LEAVES = leaves(CONFIGS)

OURS = {
    "bdd100k/dino_4scale_cbinternimage_h_objects365_bdd100k_ss",
    "coco/dino_4scale_cbinternimage_g_objects365_coco_ss",
    "coco/dino_4scale_cbinternimage_g_objects365_coco_tta",
    "coco/dino_4scale_cbinternimage_h_objects365_coco_tta",
    "lvis/dino_4scale_cbinternimage_h_objects365_lvis_val_tta",
    "objects365/dino_4scale_cbinternimage_h_objects365",
    "objects365/dino_4scale_internimage_h_objects365",
}
"""Results that the original's tables have without a config."""

ELSEWHERE = {
    "deploy/configs/mmdet/instance-seg/instance-seg_tensorrt_dynamic-320x320-1344x1344.py",
}
"""Configs of the original, below its ``detection/``, that tests/test_deploy_configs.py compares."""


def pipeline_of_wrapper(original: dict[str, Any]) -> list[dict[str, Any]]:
    return original_pipeline(original["data"]["train"]["pipeline"])


DIFFERENCES = (
    Difference(
        "*",
        {"hooks.0.type": ABSENT},
        "NumClassCheckHook: the scripts compare the head with the data set before they build it "
        "all; mmdet's hook of today would take the backbone for a head of no classes",
    ),
    Difference(
        "*",
        {"model.snip_without_effect.type": ABSENT, "model.snip_without_effect.weight": ABSENT},
        "nothing read it",
    ),
    Difference(
        "*_internimage_g_*",
        {"model.ffn": ABSENT},
        "four parts of one matrix are the same function; they are put together at loading",
    ),
    Difference(
        "lvis/*",
        {
            "model.fed_loss_without_effect.use_fed_loss": ABSENT,
            "model.fed_loss_without_effect.fed_loss_num_classes": ABSENT,
            "model.fed_loss_without_effect.freq_weight_power": ABSENT,
            "model.fed_loss_without_effect.dataset_names": ABSENT,
            "model.bbox_head.fed_loss.num_classes": 50,
            "model.bbox_head.fed_loss.frequency_power": 0.5,
            "model.bbox_head.fed_loss.ann_file": "data/lvis_v1/annotations/lvis_v1_train.json",
        },
        "repaired: the option was not read; the numbers are its own",
    ),
    Difference(
        "voc/*",
        {"train.pipeline": pipeline_of_wrapper},
        "repaired: the pipeline stood on RepeatDataset, which does not use one",
    ),
    Difference(
        "openimages/*",
        {
            "train.pipeline": lambda original: [
                {key: value for key, value in step.items() if key != "denorm_bbox"}
                for step in original_pipeline(original["data"]["train"]["pipeline"])
            ],
            "train.meta_file": "data/OpenImages/annotations/train-image-metas.pkl",
            "train.filter.filter_empty_gt": ABSENT,
            "train.filter.min_size": ABSENT,
        },
        "mmdet's data set of today turns boxes into pixels when it reads the list, for which it "
        "needs the sizes of the images, and lists no image without boxes",
    ),
    Difference(
        "crowd_human/*",
        {
            "train.ann_files": ["data/CrowdHuman/annotation_train.odgt"],
            "val.ann_files": ["data/CrowdHuman/annotation_val.odgt"],
            "test.ann_files": ["data/CrowdHuman/annotation_val.odgt"],
            "train.filter.filter_empty_gt": ABSENT,
            "train.filter.min_size": ABSENT,
            "metric": ["AP", "MR", "JI"],
        },
        "mmdet reads CrowdHuman's own files now, where every training image has a person, and "
        "computes its own measures",
    ),
    Difference(
        "crowd_human/*",
        {
            "model.test_cfg.rcnn.mask_thr_binary": ABSENT,
            **{f"model.train_cfg.rcnn.{i}.mask_size": ABSENT for i in range(3)},
        },
        "left over from a model with masks; this one has none",
    ),
)


def test_every_config_of_the_original_is_here_by_its_name_and_no_other_but_those_listed():
    names = original_names("detection")
    assert {f"configs/{name}.py" for name in LEAVES - OURS} == names - ELSEWHERE
    assert LEAVES == set(ORIGINALS) | OURS


@pytest.mark.parametrize("name", sorted(ORIGINALS))
def test_the_numbers_are_the_originals_but_for_the_listed_differences(name: str):
    original = original_facts(ORIGINALS[name])
    current = current_facts(load_current(name))
    expected = listed(DIFFERENCES, name, original, ORIGINALS[name])
    if original.get("hooks.0.type") == "EMAHook":
        del expected["hooks.0.type"]
    assert differing(original, current) == expected


def test_every_listed_difference_is_found_in_some_config():
    for difference in DIFFERENCES:
        names = fnmatch.filter(ORIGINALS, difference.configs)
        present = {key for name in names for key in original_facts(ORIGINALS[name])}
        present |= {key for name in names for key in current_facts(load_current(name))}
        assert difference.facts.keys() <= present, difference.reason


@pytest.mark.parametrize("name", sorted(LEAVES))
def test_a_leaf_says_its_result_in_its_docstring_and_names_itself_in_the_command(name: str):
    text = (CONFIGS / f"{name}.py").read_text()
    docstring = text.split('"""')[1]
    assert f"detection/configs/{name}.py" in docstring
    assert "AP" in docstring or name.startswith("objects365/")  # no figure was published
    assert len(text[text.index("_base_ =") :].splitlines()) <= 22


def test_the_readme_links_every_config_with_the_result_that_its_docstring_has():
    readme = (CONFIGS.parent / "README.md").read_text()
    linked = dict(re.findall(r"\[([\w./]+)\]\(configs/([\w./]+)\.py\)", readme))
    assert set(linked.values()) == LEAVES
    for line in readme.splitlines():
        for label, name in re.findall(r"\[([\w./]+)\]\(configs/([\w./]+)\.py\)", line):
            assert name.endswith(label)
            docstring = (CONFIGS / f"{name}.py").read_text().split('"""')[1]
            # Results have a digit behind the point, seconds two.
            numbers = set(re.findall(r"(?<![\d.])\d\d\.\d(?!\d)", line))
            assert numbers <= set(re.findall(r"\d\d\.\d(?!\d)", docstring)), name


def test_files_and_commands_of_the_readme_are_there():
    readme = (CONFIGS.parent / "README.md").read_text()
    named = set(
        re.findall(r"(?<![\w/])(?:detection|tools|internimage)/[\w./]*\w\.(?:py|sh)", readme)
    )
    assert len(named) > 8
    assert [path for path in named if not (CONFIGS.parents[1] / path).exists()] == []


@pytest.mark.parametrize("name", sorted(LEAVES))
def test_initial_weights_are_released_classifiers_and_start_weights_in_the_same_repository(
    name: str,
):
    config = load_current(name)
    init = config.model.backbone.get("init_cfg")
    if init is not None:
        release = find_release(init.checkpoint)
        assert release is not None and release.name == init.checkpoint
    if config.load_from is not None:
        assert config.load_from.startswith(f"https://huggingface.co/{PTH_REPOSITORY}/resolve/main/")
    assert init is None or config.load_from is None


@pytest.mark.parametrize("name", sorted(LEAVES))
def test_the_keys_for_own_data_are_what_the_data_sets_were_made_from(name: str):
    config = load_current(name)
    ann_files, prefixes = config.train_ann_file, config.train_img_prefix
    if isinstance(ann_files, str):
        ann_files, prefixes = [ann_files], [prefixes]
    train = [(config.data_root, *pair) for pair in zip(ann_files, prefixes, strict=True)]
    assert train == [source(part) for part in innermost(config.train_dataloader.dataset)]
    val = (config.data_root, config.val_ann_file, config.val_img_prefix)
    assert val == source(config.val_dataloader.dataset)
    if "ann_file" in config.val_evaluator:
        assert config.val_evaluator.ann_file == config.data_root + config.val_ann_file


@pytest.mark.parametrize("name", sorted(LEAVES))
def test_the_pipelines_that_a_config_shows_are_those_that_its_data_sets_have(name: str):
    config = load_current(name)
    for part in innermost(config.train_dataloader.dataset):
        assert part.pipeline == config.train_pipeline
    for loader in (config.val_dataloader, config.test_dataloader):
        assert loader.dataset.pipeline == config.test_pipeline


def innermost(dataset: Config) -> list[Config]:
    if "datasets" in dataset:
        return list(dataset.datasets)
    return innermost(dataset.dataset) if "dataset" in dataset else [dataset]


def source(dataset: Config) -> tuple[str, str, str]:
    (prefix,) = dataset.data_prefix.values()
    return dataset.data_root, dataset.ann_file, prefix


@pytest.mark.parametrize("name", sorted(name for name in OURS if name.endswith("_tta")))
def test_a_config_for_augmented_tests_adds_that_to_another_and_changes_nothing(name: str):
    plain = load_current(name.removesuffix("tta") + "ss").to_dict()
    augmented = load_current(name).to_dict()
    views = augmented.pop("tta_pipeline")[1]["transforms"]
    assert augmented.pop("tta_model")["type"] == "DetTTAModel"
    assert augmented == plain
    assert [step["scale"] for step in views[0]] == [(2000, 800), (2000, 1000), (2000, 1200)]
    assert [step["prob"] for step in views[1]] == [1.0, 0.0]


def test_the_large_backbones_differ_from_the_released_ones_in_nothing_but_their_size():
    h, g = (
        load_current(f"coco/dino_4scale_cbinternimage_{size}_objects365_coco_ss").to_dict()
        for size in "hg"
    )
    assert g["model"]["backbone"].pop("arch") == "g" and h["model"]["backbone"].pop("arch") == "h"
    assert g["model"]["neck"].pop("in_channels") == [1024, 2048, 4096]
    assert h["model"]["neck"].pop("in_channels") == [640, 1280, 2560]
    assert g.pop("load_from") is None and h.pop("load_from")
    assert g == h
