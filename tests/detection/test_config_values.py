"""Numbers and names that mmengine would stumble over after minutes end a run at its start."""

from __future__ import annotations

from pathlib import Path

import pytest

from internimage.integrations.openmmlab.scripts.config_file import read_config

CONFIG = (
    Path(__file__).resolve().parents[2]
    / "detection/configs/digit_scenes/mask_rcnn_internimage_n_fpn.py"
)


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("train_cfg.max_iters", 0, "a whole number >= 1"),
        ("train_cfg.max_iters", -5, "a whole number >= 1"),
        ("train_cfg.val_interval", 0, "a whole number >= 1"),
        ("train_cfg.val_interval", "x", "a whole number >= 1"),
        ("train_dataloader.batch_size", 1.5, "a whole number >= 1"),
        ("val_dataloader.batch_size", True, "a whole number >= 1"),
        ("train_dataloader.num_workers", -1, "a whole number >= 0"),
        ("optim_wrapper.optimizer.lr", "fast", "a number >= 0"),
        ("optim_wrapper.optimizer.lr", -0.1, "a number >= 0"),
        ("optim_wrapper.optimizer.lr", float("nan"), "a number >= 0"),
        ("optim_wrapper.optimizer.weight_decay", float("inf"), "a number >= 0"),
    ],
)
def test_a_number_out_of_range_is_named_with_its_key(key, value, rule):
    with pytest.raises(ValueError, match=rf"expected {key} = {rule}, got {value!r}"):
        read_config(CONFIG, {key: value})


def test_a_misspelt_optimiser_is_named_with_the_nearest_one():
    with pytest.raises(ValueError, match=r"optimizer\.type = .*got 'Adamm'; did you mean '?Adam"):
        read_config(CONFIG, {"optim_wrapper.optimizer.type": "Adamm"})


def test_values_in_range_are_left_alone():
    options = {"train_cfg.max_iters": 3, "optim_wrapper.optimizer.lr": 0, "val_cfg": None}
    config = read_config(CONFIG, {**options, "train_dataloader.num_workers": 0})
    assert config.train_cfg.max_iters == 3 and config.optim_wrapper.optimizer.lr == 0
