"""Every config has the original's name and its numbers, but for the differences listed here."""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mmseg.registry import DATASETS

import internimage.integrations.openmmlab.segmentation  # noqa: F401  (registers data sets)
from internimage.hub import PTH_REPOSITORY, find_release
from internimage.integrations.openmmlab.scripts.safe_loading import RELEASED_MODELS
from tests.config_facts import (
    ABSENT,
    FIXTURES,
    Difference,
    differing,
    leaves,
    listed,
    original_names,
)
from tests.segmentation.config_facts import (
    CONFIGS,
    current_facts,
    current_views,
    load_current,
    load_originals,
    original_facts,
)

ORIGINALS = load_originals()
LEAVES = leaves(CONFIGS)

ELSEWHERE = {
    "deploy/configs/mmseg/segmentation_static.py",
    "deploy/configs/mmseg/segmentation_tensorrt_static-512x512.py",
}
"""Configs of the original, below its ``segmentation/``, that tests/test_deploy_configs.py compares.
"""

PUBLISHED = json.loads((FIXTURES / "segmentation_results.json").read_text())
"""The author's mIoU of each config, at one scale and at several where there are both."""

MASK2FORMER = "*/mask2former_*"
MULTI_SCALE = "ade20k/mask2former_internimage_h_896_80k_cocostuff2ade20k_ms"

DIFFERENCES = (
    Difference(
        MASK2FORMER,
        {
            "model.decode_head.num_things_classes": ABSENT,
            "model.decode_head.num_stuff_classes": ABSENT,
            "model.decode_head.align_corners": False,
        },
        "the number of classes stands in num_classes alone; 100 things and 50 kinds of stuff were "
        "ADE20K's throughout",
    ),
    Difference(
        MASK2FORMER,
        {
            "paramwise.first_layer_names": [
                "query_embed",
                "query_feat",
                "level_embed",
                "cls_embed",
                "mask_embed",
            ]
        },
        "the names stood in the code of the original's constructor",
    ),
    Difference(
        MULTI_SCALE,
        {"val.scales": [[3584, 896]], "val.mirrored": False},
        "training validates one scale: ten views of each image would take longer than the training",
    ),
)


def test_every_config_of_the_original_is_here_by_its_name_and_no_other():
    names = original_names("segmentation")
    assert {f"configs/{name}.py" for name in LEAVES} == names - ELSEWHERE
    assert set(ORIGINALS) == LEAVES


@pytest.mark.parametrize("name", sorted(ORIGINALS))
def test_the_numbers_are_the_originals_but_for_the_listed_differences(name: str):
    original = original_facts(ORIGINALS[name])
    expected = listed(DIFFERENCES, name, original, ORIGINALS[name])
    assert differing(original, current_facts(load_current(name))) == expected


def test_every_listed_difference_is_found_in_some_config():
    for difference in DIFFERENCES:
        names = fnmatch.filter(ORIGINALS, difference.configs)
        present = {key for name in names for key in original_facts(ORIGINALS[name])}
        present |= {key for name in names for key in current_facts(load_current(name))}
        assert difference.facts.keys() <= present, difference.reason


def test_a_field_that_is_unknown_here_is_an_error():
    name = "ade20k/upernet_internimage_t_512_160k_ade20k"
    for part in ("lr_config", "data", "optimizer", "evaluation"):
        changed = dict(ORIGINALS[name])
        changed[part] = changed[part] | {"gamma": 1}
        if part == "optimizer":  # a field of it is a fact, which ours would have to have
            found = differing(original_facts(changed), current_facts(load_current(name)))
            assert found == {"optimizer.gamma": ABSENT}
        else:
            with pytest.raises(AssertionError, match="no translation of .*gamma"):
                original_facts(changed)


@pytest.mark.parametrize("name", sorted(LEAVES))
def test_a_leaf_says_its_result_in_its_docstring_and_names_itself_in_the_command(name: str):
    text = (CONFIGS / f"{name}.py").read_text()
    docstring = text.split('"""')[1]
    assert f"segmentation/configs/{name}.py" in docstring
    assert re.search(r"mIoU \d\d\.\d|mIoU not published|no mIoU published", docstring)
    assert len(text[text.index("_base_ =") :].splitlines()) <= 27


def result_rows(readme: str) -> Iterator[tuple[str, str, list[str]]]:
    """Give the label, the config and the mIoU, of one scale and of several, of each table row."""
    columns: list[str] = []
    for line in readme.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            columns = []
        elif not columns:
            columns = cells
        for label, name in re.findall(r"\[([\w./]+)\]\(configs/([\w./]+)\.py\)", cells[-1]):
            values = dict(zip(columns, cells, strict=True))
            yield label, name, [v for k in ("mIoU", "several scales") if (v := values.get(k))]


def test_the_readme_links_every_config_with_the_result_that_was_published_and_its_docstring_has():
    readme = (CONFIGS.parent / "README.md").read_text()
    rows = list(result_rows(readme))
    assert {name: scores for _, name, scores in rows} == PUBLISHED
    assert len(rows) == len(LEAVES)
    for label, name, scores in rows:
        assert name.endswith(label)
        docstring = (CONFIGS / f"{name}.py").read_text().split('"""')[1]
        assert re.findall(r"(?<![\d.])\d\d\.\d\d?(?!\d)", docstring) == scores, name


def test_files_and_commands_of_the_readme_are_there():
    readme = (CONFIGS.parent / "README.md").read_text()
    named = set(
        re.findall(
            r"(?<![\w/])(?:segmentation|tools|internimage|docs)/[\w./]*\w\.(?:py|sh|md)", readme
        )
    )
    assert len(named) > 8
    assert [path for path in named if not (CONFIGS.parents[1] / path).exists()] == []


@pytest.mark.parametrize("name", sorted(LEAVES))
def test_initial_weights_are_released_classifiers_and_start_weights_released_segmentors(name: str):
    config = load_current(name)
    init = config.model.backbone.get("init_cfg")
    if init is not None:
        release = find_release(init.checkpoint)
        assert release is not None and release.name == init.checkpoint
    if config.load_from is not None:
        start = f"https://huggingface.co/{PTH_REPOSITORY}/resolve/main/"
        assert config.load_from.startswith(start)
        assert Path(config.load_from).stem in RELEASED_MODELS
    assert (init is None) != (config.load_from is None)


def test_the_released_segmentors_are_those_of_the_configs():
    files = {Path(name).name for name in LEAVES}
    files -= {"upernet_internimage_g_896_160k_ade20k"}  # it was not released
    files -= {Path(MULTI_SCALE).name, Path(MULTI_SCALE).name.removesuffix("ms") + "ss"}
    files.add("mask2former_internimage_h_896_80k_cocostuff2ade20k")  # the weights of both
    detectors = ("mask_rcnn_", "cascade_", "dino_")
    assert {name for name in RELEASED_MODELS if not name.startswith(detectors)} == files


def parts_of(dataset: dict[str, Any]) -> list[dict[str, Any]]:
    return list(dataset.get("datasets", [dataset]))


@pytest.mark.parametrize("name", sorted(LEAVES))
def test_the_keys_for_own_data_are_what_the_data_sets_were_made_from(name: str):
    config = load_current(name)
    for part in ("train", "val"):
        images, masks = config[f"{part}_img_prefix"], config[f"{part}_seg_map_prefix"]
        if isinstance(images, str):
            images, masks = [images], [masks]
        datasets = parts_of(config[f"{part}_dataloader"].dataset)
        assert [dict(data.data_prefix) for data in datasets] == [
            {"img_path": image, "seg_map_path": mask}
            for image, mask in zip(images, masks, strict=True)
        ]
        for data in datasets:
            assert data.data_root == config.data_root
            assert data.get("ann_file") == config.get(f"{part}_ann_file")
            if not name.startswith("mapillary/"):  # two data sets, with suffixes of their own
                for key in ("img_suffix", "seg_map_suffix", "reduce_zero_label"):
                    assert data[key] == config[key]


@pytest.mark.parametrize("name", sorted(LEAVES))
def test_the_pipelines_that_a_config_shows_are_those_that_its_data_sets_have(name: str):
    config = load_current(name)
    for data in parts_of(config.train_dataloader.dataset):
        assert data.pipeline == config.train_pipeline
    for loader in (config.val_dataloader, config.test_dataloader):
        assert loader.dataset.pipeline == config.test_pipeline


@pytest.mark.parametrize("name", sorted(LEAVES))
def test_masks_are_checked_right_behind_their_loading_against_the_classes_of_the_data_set(
    name: str,
):
    config = load_current(name)
    kinds = {part.type for part in parts_of(config.train_dataloader.dataset)}
    (count,) = {len(DATASETS.get(kind).METAINFO["classes"]) for kind in kinds}
    views = [step for (step,) in config.tta_pipeline[1].transforms[-3:]]
    for pipeline in (config.train_pipeline, config.test_pipeline, views):
        at = [step.type for step in pipeline].index("LoadAnnotations")
        assert pipeline[at + 1] == {"type": "CheckSegMap", "num_classes": count}


@pytest.mark.parametrize("name", sorted(LEAVES))
def test_the_heads_have_the_classes_of_the_data_set_or_the_docstring_says_why_not(name: str):
    config = load_current(name)
    heads = [config.model[key] for key in ("decode_head", "auxiliary_head") if key in config.model]
    (outputs,) = {head.num_classes for head in heads}
    count = config.train_pipeline[2].num_classes
    docstring = (CONFIGS / f"{name}.py").read_text().split('"""')[1]
    if outputs != count:
        assert (outputs, count) == (150, 19)
        assert "150 outputs, 19 of them used" in docstring
    if "mask2former" in name:
        assert config.model.decode_head.loss_cls.class_weight == [1.0] * count + [0.1]


@pytest.mark.parametrize("name", sorted(LEAVES - {MULTI_SCALE}))
def test_an_augmented_test_has_the_originals_ratios_of_the_size_in_a_test_and_mirrors(name: str):
    config = load_current(name)
    width, height = config.test_pipeline[1].scale
    scales, mirrored, rest = current_views(config.to_dict()["tta_pipeline"])
    ratios = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
    assert scales == [[int(width * ratio), int(height * ratio)] for ratio in ratios]
    assert mirrored and rest == config.test_pipeline[2:-3]
    assert not config.get("tta")


def test_the_config_for_several_scales_differs_from_that_for_one_in_its_test_alone():
    single = load_current(MULTI_SCALE.removesuffix("ms") + "ss").to_dict()
    several = load_current(MULTI_SCALE).to_dict()
    assert several.pop("tta") is True
    assert several.pop("tta_pipeline") != single.pop("tta_pipeline")
    assert several == single
