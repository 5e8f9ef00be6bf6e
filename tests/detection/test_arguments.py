"""The flags of the scripts: the original's spellings, and the effect of each on the config."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from internimage.integrations.openmmlab.scripts.arguments import (
    parse_flops,
    parse_test,
    parse_train,
)
from internimage.integrations.openmmlab.scripts.train import apply_arguments
from tests.detection.script_runs import CONFIGS

CONFIG = CONFIGS / "coco" / "mask_rcnn_internimage_t_fpn_1x_coco.py"


@pytest.mark.parametrize(
    ("typed", "name", "value", "said"),
    [
        ("--resume-from a.pth", "resume", "a.pth", "--resume a.pth"),
        ("--resume_from a.pth", "resume", "a.pth", "--resume a.pth"),
        ("--auto-resume", "resume", "auto", "from now on: --resume"),
        ("--options a.b=1", "cfg_options", {"a.b": 1}, "from now on: --cfg-options"),
        ("--gpus 1", "gpu_id", None, "--gpus has no effect"),
    ],
)
def test_old_flags_of_training_are_mapped_and_said_once(typed, name, value, said):
    with pytest.warns(UserWarning) as caught:
        args = parse_train("train.py", ["c.py", *typed.split()])
    assert getattr(args, name) == value
    (warning,) = (one for one in caught if one.category is UserWarning)
    assert said in str(warning.message)


@pytest.mark.parametrize(
    ("typed", "name", "value", "said"),
    [
        ("--aug-test", "tta", True, "from now on: --tta"),
        ("--options classwise=True", "eval_options", {"classwise": True}, "--eval-options"),
    ],
)
def test_old_flags_of_evaluation_are_mapped_and_said_once(typed, name, value, said):
    with pytest.warns(UserWarning, match=said):
        args = parse_test("test.py", ["c.py", "a.pth", *typed.split()])
    assert getattr(args, name) == value


@pytest.mark.parametrize(
    ("typed", "name", "value"),
    [
        ("--work_dir w", "work_dir", "w"),
        ("--work-dir=w", "work_dir", "w"),
        ("--local_rank 3", "local_rank", 3),
        ("--local-rank=3", "local_rank", 3),
        ("--gpu-id 1", "gpu_id", 1),
        ("--gpu-ids 2", "gpu_id", 2),
        ("--diff_seed", "diff_seed", True),
        ("--resume", "resume", "auto"),
        ("--resume a.pth", "resume", "a.pth"),
        ("--launcher slurm", "launcher", "slurm"),
    ],
)
def test_flags_may_be_typed_in_either_way_without_a_word(typed, name, value):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert getattr(parse_train("train.py", ["c.py", *typed.split()]), name) == value


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("('traffic light','dog')", ("traffic light", "dog")),
        ("['a b']", ["a b"]),
        ("cat,dog", ["cat", "dog"]),
        ("(cat,dog)", ("cat", "dog")),
        ("[1,2]", [1, 2]),
        ("dict(type='A', b=dict(c=[1]))", {"type": "A", "b": {"c": [1]}}),
        ("[dict(type='A')]", [{"type": "A"}]),
        ("1e-4", 1e-4),
        ("true", True),
        ("None", None),
        ("dict", "dict"),
        ("a=b", "a=b"),
        ("my photos/of cups", "my photos/of cups"),
        ("1, 2", [1, 2]),
    ],
)
def test_values_of_options_are_numbers_lists_and_names_with_spaces(typed, expected):
    args = parse_train("train.py", ["c.py", "--cfg-options", f"key={typed}"])
    assert args.cfg_options == {"key": expected}


def test_options_may_be_given_twice():
    args = parse_train("train.py", ["c.py", "--cfg-options", "a=1", "--cfg-options", "b=2", "a=3"])
    assert args.cfg_options == {"a": 3, "b": 2}


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("", "expected CONFIG, a config file, got none"),
        ("c.py --wrk-dir x", "did you mean --work-dir"),
        ("c.py --seed x", "invalid int value: 'x'"),
        ("c.py --launcher pbs", "invalid choice: 'pbs'"),
        ("c.py --gpu-ids 0 1", "expected one GPU"),
        ("c.py --gpu-id 1 --gpu-ids 0", "one of --gpu-ids and --gpu-id"),
        ("c.py --resume a.pth --resume-from b.pth", "one of --resume-from and --resume"),
        ("c.py --options a=1 --cfg-options b=2", "one of --options and --cfg-options"),
        ("c.py --cfg-options a=[1,[2]", "brackets in pairs and texts in quotes, got a=\\[1,\\[2"),
        ("c.py --cfg-options a=dict(b=c,d=e)", "brackets in pairs and texts in quotes, got a=dict"),
        ("c.py d.py", "expected known flags, got d.py"),
    ],
)
def test_a_wrong_command_line_is_refused(typed: str, message: str):
    with pytest.raises(ValueError, match=message), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parse_train("train.py", typed.split())


@pytest.mark.parametrize(
    ("typed", "shape"), [("", (800, 1280)), ("--shape 64 96", (64, 96)), ("--shape 64", (64, 64))]
)
def test_a_shape_is_height_and_width_or_one_side(typed: str, shape: tuple[int, int]):
    assert parse_flops("get_flops.py", ["c.py", *typed.split()]).shape == shape


@pytest.mark.parametrize("typed", ["--shape 1 2 3", "--shape 0", "--size-divisor 0"])
def test_an_impossible_shape_is_refused(typed: str):
    with pytest.raises(ValueError, match=">= 1, got"):
        parse_flops("get_flops.py", ["c.py", *typed.split()])


def settle(*typed: str) -> Config:
    """Mask R-CNN-T's config with what the flags of train.py make of it."""
    config = Config.fromfile(CONFIG)
    apply_arguments(config, parse_train("train.py", [str(CONFIG), *typed]))
    return config


def test_without_flags_the_config_is_as_it_was_written():
    before, after = Config.fromfile(CONFIG), settle()
    assert after.pop("work_dir") == f"work_dirs/{CONFIG.stem}"
    assert after.pop("randomness") == {"seed": None}
    assert after._cfg_dict == before._cfg_dict


def test_seeds_reach_the_runner():
    config = settle("--seed", "3", "--diff-seed", "--deterministic")
    assert config.randomness == {"seed": 3, "diff_rank_seed": True, "deterministic": True}


def test_no_validate_leaves_no_evaluation():
    config = settle("--no-validate")
    assert (config.val_dataloader, config.val_evaluator, config.val_cfg) == (None, None, None)


def test_auto_scale_lr_switches_it_on():
    assert settle().auto_scale_lr.enable is False
    assert settle("--auto-scale-lr").auto_scale_lr == {"enable": True, "base_batch_size": 16}


def test_amp_is_float16_with_scaling_on_a_gpu_and_bfloat16_on_a_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    on_gpu = settle("--amp").optim_wrapper
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    on_cpu = settle("--amp").optim_wrapper
    assert (on_gpu.type, on_gpu.loss_scale) == ("AmpOptimWrapper", "dynamic")
    assert (on_cpu.type, "loss_scale" in on_cpu) == ("HostAmpOptimWrapper", False)


def test_resume_and_load_from_are_told_apart():
    resumed, started, both = settle("--resume", "a.pth"), settle("--load-from", "b.pth"), settle()
    assert (resumed.resume, resumed.load_from) == (True, "a.pth")
    assert (started.resume, started.load_from) == (False, "b.pth")
    assert (both.resume, both.load_from) == (False, None)
    # A batch job may say both from its first start on.
    first = settle("--resume", "--load-from", "b.pth")
    assert (first.resume, first.load_from) == (True, "b.pth")


def test_the_work_dir_of_the_flag_wins_over_the_config(tmp_path: Path):
    assert settle("--work-dir", str(tmp_path)).work_dir == str(tmp_path)
